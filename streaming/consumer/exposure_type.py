"""The type of an exposure under one feature spec, made when the spec is known.

msgspec then checks the type of every feature value while it reads, and makes a small struct of the
features in place of a dictionary: faster than reading them first and looking at them afterwards.
"""

from __future__ import annotations

from typing import Annotated, Any, Union

import msgspec
import pyarrow as pa

from contracts.events import MAX_ID, Exposure
from contracts.features import MAX_CANDIDATES, FeatureSpec
from contracts.slate_columns import item_columns, user_columns


def exposure_type(spec: FeatureSpec, checked: bool = True) -> Any:
    """``contracts.events.Exposure``, whose features must be what the columns of ``spec`` take.

    A feature ``x`` is the attribute ``f_x`` (any name of a spec is then a name in Python); features
    that are not in the spec are not looked at. ``checked=False`` leaves out what ``__post_init__``
    asks for: for bytes that have been accepted before. Plain values cannot form cycles, so the
    garbage collector need not visit any of it.
    """
    candidate = msgspec.defstruct(
        "Candidate",
        [
            ("item", str),
            _with_default("features", _features(item_columns(spec))),
            ("score", Union[float, None], None),
        ],
        frozen=True,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )
    many = Annotated[tuple[candidate, ...], msgspec.Meta(max_length=MAX_CANDIDATES)]  # type: ignore[valid-type]
    return msgspec.defstruct(
        "Exposure",
        [("candidates", many), _with_default("user_features", _features(user_columns(spec)))],
        bases=(Exposure,),
        namespace={"__post_init__": _check if checked else _accepted},
        tag_field="type",
        tag="exposure",
        frozen=True,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _check(self: Any) -> None:
    """As ``Exposure.__post_init__``, whose words are used where something is wrong."""
    m, exposed = len(self.candidates), self.exposed
    items = [candidate.item for candidate in self.candidates]
    if not (
        exposed
        and len(set(exposed)) == len(exposed)
        and min(exposed) >= 0
        and max(exposed) < m
        and len(different := set(items)) == m
        and "" not in different
        and max(map(len, items)) <= MAX_ID
        and (self.log_prob is None or len(self.log_prob) == len(exposed))
    ):
        Exposure.__post_init__(self)
        raise AssertionError("the two checks differ")


def _accepted(self: Any) -> None:
    """Nothing is checked a second time."""


def _with_default(name: str, kind: Any) -> tuple[str, Any, Any]:
    return name, kind, msgspec.field(default_factory=kind)


def _features(columns: dict[str, pa.DataType]) -> Any:
    fields = [
        (
            f"f_{name}",
            Union[str, int, bool, None] if kind == pa.string() else Union[float, bool, None],
            msgspec.field(name=name, default=None),
        )
        for name, kind in columns.items()
    ]
    return msgspec.defstruct("Features", fields, frozen=True, kw_only=True, gc=False)

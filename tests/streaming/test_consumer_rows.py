"""The consumer's quick way to rows gives the rows of the contract's plain way, value by value."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import Exposure, decode_exposure, encode_event
from contracts.feedback_table import day_of
from contracts.reading import ContractError
from contracts.slate_columns import to_table
from contracts.slates import Candidate
from streaming.consumer.dead_letters import Refused
from streaming.consumer.intake import Intake
from streaming.consumer.open_slates import Act, OpenSlate
from streaming.consumer.rows import RowBuilder
from tests.streaming.lane_records import NOW, SKEW, SPEC, act, record, slate_of_closed

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
CATEGORY = st.none() | TEXT | st.booleans() | st.integers(-(10**25), 10**25)
NUMBER = st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False)
FINITE = NUMBER.filter(lambda one: one not in (float("inf"), -float("inf")))
ANY = CATEGORY | FINITE


@st.composite
def exposures(draw: st.DrawFn, category: Any = CATEGORY, number: Any = FINITE) -> Exposure:
    m = draw(st.integers(1, 5))
    candidates = tuple(
        Candidate(
            item=f"i{index}",
            features=draw(
                st.fixed_dictionaries(
                    {}, optional={"colour": category, "price": number, "unknown": ANY}
                )
            ),
            score=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        )
        for index in range(m)
    )
    exposed = draw(st.permutations(range(m)))[: draw(st.integers(1, m))]
    return Exposure(
        request_id=draw(st.sampled_from("qrs")),
        user=draw(st.text("uv", min_size=1, max_size=3)),
        time=draw(st.integers(0, 400_000_000)),
        candidates=candidates,
        exposed=tuple(exposed),
        user_features=draw(st.fixed_dictionaries({}, optional={"age": number, "x": ANY})),
        surface=draw(TEXT),
        log_prob=draw(st.none() | st.just((-0.5,) * len(exposed))),
        temperature=draw(st.sampled_from([0.0, 0.7])),
        seed=draw(st.integers(-(1 << 63), (1 << 63) - 1)),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(exposures(), max_size=4), st.data())
def test_rows_are_those_of_to_table(events: list[Exposure], data: st.DataObject) -> None:
    closed = []
    for offset, event in enumerate(events):
        slate = OpenSlate(offset, b"", encode_event(event), event)
        for number in range(data.draw(st.integers(0, 4))):
            kind = data.draw(st.sampled_from(["click", "watch"]))
            value = data.draw(st.sampled_from([0.0, 1.0]))
            item = data.draw(st.sampled_from(slate.items))
            one = act("q", event.time + number, f"e{number}", kind=kind, value=value, item=item)
            assert slate.take(Act(number, b"", b"", one))
        closed.append(slate)
    plain = to_table([slate_of_closed(one) for one in closed], SPEC)
    quick = RowBuilder(SPEC).table(closed)
    assert quick["day"].to_pylist() == [day_of(one.time) for one in events]
    assert quick.drop(["day"]).to_pylist() == plain.to_pylist()


@settings(max_examples=150, deadline=None)
@given(exposures(category=ANY, number=ANY))
def test_intake_refuses_what_the_columns_refuse(event: Exposure) -> None:
    """What the intake lets through can be written; what it does not, ``to_table`` refuses too."""
    try:
        raw = encode_event(event)
        decode_exposure(raw)
    except (ContractError, ValueError):
        return
    try:
        Intake(SPEC, SKEW).exposure(record(0, event), NOW * 1_000)
    except Refused as refused:
        assert refused.reason == "feature_value"  # noqa: PT017 (either way is one of the test's)
        with pytest.raises(ContractError):
            to_table([slate_of_closed(OpenSlate(0, b"", raw, event))], SPEC)
    else:
        RowBuilder(SPEC).table([OpenSlate(0, b"", raw, event)])


@pytest.mark.parametrize(
    "fields",
    [
        {"exposed": ()},
        {"exposed": (0, 0)},
        {"exposed": (0, 9)},
        {"exposed": (-1,)},
        {"candidates": ("a", "a")},
        {"candidates": ("a", "")},
        {"candidates": ("a", "b" * 257)},
        {"log_prob": (-1.0,)},
    ],
)
def test_rules_of_an_exposure_hold_in_the_quick_type(fields: dict[str, Any]) -> None:
    plain: dict[str, Any] = {
        "type": "exposure",
        "request_id": "q",
        "user": "u",
        "time": 1,
        "candidates": ("a", "b"),
        "exposed": (0, 1),
        **fields,
    }
    plain["candidates"] = [{"item": item} for item in plain["candidates"]]
    raw = msgspec.json.encode(plain)
    with pytest.raises(ContractError):
        decode_exposure(raw)
    with pytest.raises(Refused, match="malformed"):
        Intake(SPEC, SKEW).exposure(record(0, raw), NOW)

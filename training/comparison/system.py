"""What the comparison asks of a system: settings to try, ``fit`` on slates, ``rerank``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from contracts.reading import Strict
from training.baselines.base import Fitted
from training.comparison.cases import Case
from training.data.arrays import SlateArrays
from training.settings import override

SomeSettings = TypeVar("SomeSettings", bound=Strict)


@dataclass(frozen=True)
class Slates:
    """A case's slates, on disk and as arrays.

    Attributes:
        valid: what systems choose their epoch on. judged: the same lists, with all the feedback
            that the logs hold: trials are chosen on them. test has all the feedback, too.
    """

    folder: Path
    train: SlateArrays
    valid: SlateArrays
    judged: SlateArrays
    test: SlateArrays


@dataclass(frozen=True)
class Trained:
    """A fitted system.

    Attributes:
        alarm: why its training was stopped, if an alarm did that.
        scalars: what its last epoch logged, where it logs.
        saved_seconds: processor seconds that it would have cost more, had not another training of
            the same data and seed made a part of it before.
    """

    fitted: Fitted
    alarm: str = ""
    scalars: dict[str, float] = field(default_factory=dict)
    saved_seconds: float = 0.0


class System(Protocol):
    """A system to compare.

    Attributes:
        is_gref: GReF, or a part of it.
        code: the modules that its results begin at (code_state.py).
        learns: whether feedback changes it, so that the control with shuffled feedback says
            something.
    """

    name: str
    about: str
    is_gref: bool
    code: tuple[str, ...]
    learns: bool

    def fits(self, case: Case) -> bool:
        """Whether it can be asked about a case."""
        ...

    def trials(self, case: Case, count: int) -> list[Strict]:
        """Settings to try, the defaults first; fewer where there is less to try."""
        ...

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        """Train; ``folder`` is new and may be filled."""
        ...


def with_changes(settings: SomeSettings, changes: Mapping[str, Any]) -> SomeSettings:
    """Settings with those of the dotted fields replaced that they have."""
    known = msgspec.to_builtins(settings)
    return override(settings, {name: v for name, v in changes.items() if _has(known, name)})


def _has(plain: Any, dotted: str) -> bool:
    for name in dotted.split("."):
        if not isinstance(plain, dict) or name not in plain:
            return False
        plain = plain[name]
    return True

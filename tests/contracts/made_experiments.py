"""Experiments for tests: made by hand, and drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from contracts.experiment_metrics import Metric
from contracts.experiments import GRAINS, Arm, Experiment, Exploration

STARTED = "2026-03-01T09:00:00+00:00"
CLICKS = Metric(name="clicks", kind="click")


def experiment(name: str = "one", **changes: Any) -> Experiment:
    """A running experiment of two arms; ``changes`` are its fields."""
    fields: dict[str, Any] = {
        "name": name,
        "salt": f"salt-{name}",
        "state": "running",
        "started": STARTED,
        "primary": CLICKS,
        "arms": (
            Arm(name="control", release="champion", weight=0.5),
            Arm(name="treatment", release="r0002", weight=0.5),
        ),
        **changes,
    }
    return Experiment(**fields)


def weighted(
    grains: Sequence[int], ceilings: Sequence[int | None] | None = None, **changes: Any
) -> Experiment:
    """An experiment whose treatments have weights (and ceilings) in units of 0.0001."""
    ceilings = ceilings or [None] * len(grains)
    control = Arm(name="c", release="champion", weight=(GRAINS - sum(grains)) / GRAINS)
    treatments = [
        Arm(
            name=f"t{number}",
            release=f"r{number:04d}",
            weight=weight / GRAINS,
            ceiling=None if ceiling is None else ceiling / GRAINS,
        )
        for number, (weight, ceiling) in enumerate(zip(grains, ceilings), start=1)
    ]
    return experiment(arms=(control, *treatments), **changes)


@st.composite
def regions(draw: st.DrawFn) -> list[int]:
    """Ceilings of one to four treatments, in units of 0.0001, that sum to 1 at most."""
    cuts = draw(st.lists(st.integers(0, GRAINS), min_size=2, max_size=5, unique=True))
    return [b - a for a, b in zip(sorted(cuts), sorted(cuts)[1:])]


@st.composite
def experiments(draw: st.DrawFn, **changes: Any) -> Experiment:
    """Any valid experiment by weights and ceilings, with any salt."""
    limits = draw(regions())
    weights = [draw(st.integers(0, limit)) for limit in limits]
    salt = draw(st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True))
    return weighted(weights, limits, salt=salt, **changes)


def explorations() -> st.SearchStrategy[Exploration | None]:
    return st.none() | st.builds(
        Exploration, share=st.floats(0, 1), temperature=st.floats(0.01, 100)
    )

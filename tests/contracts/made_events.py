"""Hypothesis strategies of events, and plain examples."""

from __future__ import annotations

from hypothesis import strategies as st

from contracts.events import Exposure, FeedbackEvent
from contracts.slates import Candidate, Scalar

letters = st.characters(exclude_categories=["Cs"])
ids = st.text(letters, min_size=1, max_size=8)
names = st.text(letters, max_size=8)
times = st.integers(0, 1 << 53)
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars: st.SearchStrategy[Scalar] = st.one_of(
    names, st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), finite, st.none()
)


@st.composite
def exposures(draw: st.DrawFn) -> Exposure:
    items = draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    order = draw(st.permutations(range(len(items))))
    exposed = tuple(order[: draw(st.integers(1, len(order)))])
    return Exposure(
        request_id=draw(ids),
        user=draw(ids),
        time=draw(times),
        candidates=tuple(
            Candidate(
                item=item,
                features=draw(st.dictionaries(names, scalars, max_size=3)),
                score=draw(st.none() | finite),
            )
            for item in items
        ),
        exposed=exposed,
        user_features=draw(st.dictionaries(names, scalars, max_size=3)),
        surface=draw(names),
        release=draw(names),
        arm=draw(names),
        fallback=draw(names),
        log_prob=draw(st.none() | st.tuples(*(finite for _ in exposed))),
        temperature=draw(st.floats(0, 10)),
        seed=draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        feature_spec_sha256=draw(names),
    )


@st.composite
def feedback_events(draw: st.DrawFn) -> FeedbackEvent:
    return FeedbackEvent(
        event_id=draw(ids),
        request_id=draw(ids),
        item=draw(ids),
        kind=draw(ids),
        value=draw(finite),
        time=draw(times),
    )


def exposure(
    number: int = 0, count: int = 3, items: tuple[Candidate, ...] | None = None, **fields: object
) -> Exposure:
    """A plain exposure of request ``r<number>``; all candidates are shown, last first."""
    items = items or tuple(
        Candidate(item=f"i{n}", features={"topic": "film", "price": 1.5}) for n in range(count)
    )
    made: dict[str, object] = {
        "request_id": f"r{number}",
        "user": f"u{number % 7}",
        "time": 1_700_000_000_000 + number,
        "candidates": items,
        "exposed": tuple(reversed(range(len(items)))),
    }
    return Exposure(**{**made, **fields})  # type: ignore[arg-type]


def feedback(number: int = 0, **fields: object) -> FeedbackEvent:
    """A plain click on item i1 of request ``r<number>``."""
    made: dict[str, object] = {
        "event_id": f"e{number}",
        "request_id": f"r{number}",
        "item": "i1",
        "kind": "click",
        "value": 1.0,
        "time": 1_700_000_001_000 + number,
    }
    return FeedbackEvent(**{**made, **fields})  # type: ignore[arg-type]

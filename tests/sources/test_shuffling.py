"""The control: feedback moves between lists, and nothing else changes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.slates import Slate
from tests.sources.made_slates import slate
from training.sources import shuffling
from training.sources.shuffling import shuffled_feedback

kinds = st.lists(
    st.tuples(st.sampled_from(["train", "valid", "test"]), st.sampled_from([1, 2])), max_size=30
)


def make(drawn: list[tuple[str, int]]) -> list[tuple[str, Slate]]:
    pairs = []
    for number, (split, length) in enumerate(drawn):
        made = slate(number, 1000 * number)
        kept = tuple(one for one in made.feedback if one.position < length)
        pairs.append((split, slate(number, made.time, exposed=(2, 0)[:length], feedback=kept)))
    return pairs


def delays(slates: list[Slate]) -> Counter[tuple[int, ...]]:
    """The feedback of lists as it was made: who gave it shows in the delay."""
    return Counter(
        tuple((len(one.exposed), f.position, f.time - one.time) for f in one.feedback)
        for one in slates
    )  # type: ignore[return-value]


@given(kinds, st.integers(0, 3))
def test_feedback_is_permuted_within_split_and_length(
    drawn: list[tuple[str, int]], seed: int
) -> None:
    pairs = make(drawn)
    found = list(shuffled_feedback(pairs, ("train", "valid"), seed))
    for split in ("train", "valid", "test"):
        before = [one for name, one in pairs if name == split]
        after = [one for name, one in found if name == split]
        assert [one.request_id for one in after] == [one.request_id for one in before]
        assert [one.candidates for one in after] == [one.candidates for one in before]
        assert [one.exposed for one in after] == [one.exposed for one in before]
        assert delays(after) == delays(before)
        if split == "test":
            assert after == before


def test_the_tie_to_the_items_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffling, "BLOCK", 64)
    pairs = make([("train", 2)] * 200)
    found = [one for _, one in shuffled_feedback(pairs, ("train",), 1)]
    stayed = sum(a.feedback == b.feedback for a, (_, b) in zip(found, pairs))
    assert stayed < 20  # about one in each block of 64
    assert found == [one for _, one in shuffled_feedback(pairs, ("train",), 1)]
    assert found != [one for _, one in shuffled_feedback(pairs, ("train",), 2)]

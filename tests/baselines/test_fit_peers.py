"""Every peer learns from logs what its kind can learn, and owes a list whatever it is asked."""

from __future__ import annotations

from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.features import FeedbackKind
from tests.baselines.toys import (
    BEST,
    POINTWISE_BOUND,
    SPEC,
    N,
    fitted,
    merit_click,
    merit_truth,
    merit_world,
    repeats_truth,
    repeats_world,
    rerank_all,
    small,
)
from tests.model.tiny import one_row, padded
from training.baselines.base import PEERS, trials
from training.data.batch import Batch
from training.evaluation.metrics import given_order

LEARNING = [name for name in PEERS if name not in ("random", "given")]
POINTWISE = ["dnn", "dcn", "lambdamart", "dnn-rates"]


@pytest.mark.parametrize("name", LEARNING)
def test_learns_the_one_feature_that_decides_the_click(name: str) -> None:
    asked = merit_world(500, 3)
    made, _ = fitted(name, "merit")
    best = np.sort(merit_click(asked.item_dense[..., 0]), axis=1)[:, -N:].sum(1).mean()
    start = merit_truth(asked, given_order(asked.count, N)).mean()
    found = merit_truth(asked, rerank_all(made, asked)).mean()
    assert (found - start) / (best - start) > 0.9


@pytest.mark.parametrize("name", LEARNING)
def test_list_aware_peers_win_where_no_pointwise_one_can(name: str) -> None:
    asked = repeats_world(500, 3)
    found = repeats_truth(asked, rerank_all(fitted(name, "repeats")[0], asked))
    error = 2 * found.std() / len(found) ** 0.5
    if name in POINTWISE:
        assert found.mean() < POINTWISE_BOUND + error
    else:
        assert found.mean() > POINTWISE_BOUND + 0.25
        assert found.mean() <= BEST


@pytest.mark.parametrize("name", [name for name in LEARNING if name != "nar4rec"])
def test_the_chosen_epoch_is_the_best_held_out(name: str) -> None:
    made, told = fitted(name, "merit")
    scores = [one["held_out"] for one in told]
    assert [one["epoch"] for one in told] == list(range(1, len(told) + 1))
    assert made.epochs == 1 + int(np.argmax(scores))
    assert made.parameters > 0


@pytest.mark.parametrize("name", list(PEERS))
def test_same_seed_same_lists(name: str) -> None:
    train, valid, asked = merit_world(200, 5), merit_world(60, 6), merit_world(100, 7)
    chosen = small(name)
    few = msgspec.structs.replace(chosen, optim=msgspec.structs.replace(chosen.optim, epochs=2))
    lists = []
    for seed in (4, 4, 5):
        torch.manual_seed(len(lists))  # what came before must not matter
        made = PEERS[name].fit(train, valid, SPEC, few, seed, lambda **_: None)
        lists.append(rerank_all(made, asked))
    assert np.array_equal(lists[0], lists[1])
    if name not in ("given", "lambdamart"):
        assert not np.array_equal(lists[0], lists[2])


def requests(counts: list[int], seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    size, m = len(counts), max(counts)
    real = np.arange(m) < np.array(counts)[:, None]
    shown = np.full((size, N), -1)
    for row, count in enumerate(counts):
        listed = rng.permutation(count)[:N]
        shown[row, : len(listed)] = listed
    arrays = {
        "item_cat": (rng.integers(2, 5, (size, m, 1)) * real[..., None]).astype(np.int32),
        "item_dense": (rng.normal(size=(size, m, 2)) * real[..., None]).astype(np.float32),
        "user_cat": np.zeros((size, 1), np.int32),
        "user_dense": rng.normal(size=(size, 2)).astype(np.float32),
        "count": np.array(counts, np.int32),
        "exposed": shown,
        "utility": (rng.random((size, N)) < 0.5).astype(np.float32),
        "feedback": np.zeros((size, N, 1), np.float32),
        "row": np.arange(size),
    }
    return Batch(**{name: torch.from_numpy(value) for name, value in arrays.items()})


@pytest.mark.parametrize("name", list(PEERS))
@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 9999))
def test_lists_are_whole_whatever_is_asked(name: str, counts: list[int], seed: int) -> None:
    made, _ = fitted(name, "merit")
    batch = requests(counts, seed)
    order = made.rerank(batch)
    assert (order.dtype, order.shape) == (torch.int64, (len(counts), N))
    for row, m in enumerate(counts):
        listed = order[row, : min(m, N)].tolist()
        assert len(set(listed)) == min(m, N)
        assert set(listed) <= set(range(m))
        assert (order[row, min(m, N) :] == -1).all()
        # Neither company nor padding nor what was shown may change a list.
        assert torch.equal(made.rerank(one_row(batch, row))[0], order[row])
    assert torch.equal(made.rerank(padded(batch, 3)), order)
    flipped = {"exposed": batch.exposed.flip(1), "utility": 1 - batch.utility}
    other = Batch(**{f.name: flipped.get(f.name, getattr(batch, f.name)) for f in fields(batch)})
    assert torch.equal(made.rerank(other), order)


@pytest.mark.parametrize("name", LEARNING)
def test_lists_of_many_lengths_and_continuous_feedback(name: str) -> None:
    """Lists shorter than n, one candidate alone, and a utility that is a soft label."""
    rng = np.random.default_rng(0)
    spec = msgspec.structs.replace(SPEC, feedback=(FeedbackKind(kind="click", type="continuous"),))
    parts = []
    for seed in (1, 2):
        full = merit_world(150, seed)
        count = rng.integers(1, 7, 150).astype(np.int32)
        real = np.arange(6) < count[:, None]
        exposed = np.where(full.exposed < count[:, None], full.exposed, -1)
        exposed = np.take_along_axis(exposed, np.argsort(exposed < 0, axis=1, kind="stable"), 1)
        exposed[:, 0] = np.where(exposed[:, 0] < 0, 0, exposed[:, 0])
        parts.append(
            replace(
                full,
                spec=spec,
                item_cat=full.item_cat * real[..., None],
                item_dense=full.item_dense * real[..., None],
                count=count,
                exposed=exposed,
                feedback=(rng.exponential(9, exposed.shape) * (exposed >= 0))[..., None],
                utility_scale=9.0,
            )
        )
    few = small(name, **{"optim.epochs": 2})
    told: list[dict[str, float]] = []
    made = PEERS[name].fit(*parts, spec, few, 0, lambda **one: told.append(one))
    assert all(np.isfinite(one["held_out"]) for one in told)
    order = rerank_all(made, parts[1])
    assert np.array_equal((order >= 0).sum(1), np.minimum(parts[1].count, N))


def test_slates_of_another_spec_are_refused() -> None:
    other = msgspec.structs.replace(SPEC, list_size=2)
    for name in LEARNING:
        with pytest.raises(ValueError, match="another feature spec"):
            PEERS[name].fit(
                merit_world(60, 6), merit_world(60, 6), other, small(name), 0, lambda **_: None
            )


def test_every_peer_is_given_the_same_number_of_trials() -> None:
    for name, peer in PEERS.items():
        assert peer.name == name
        assert peer.paper
        drawn = trials(peer.settings_type, 12, seed=1)
        assert drawn[0] == peer.settings_type()
        assert len(drawn) == (12 if name in LEARNING else 1)
        assert len(set(map(repr, drawn))) == len(drawn)
        assert drawn == trials(peer.settings_type, 12, seed=1)

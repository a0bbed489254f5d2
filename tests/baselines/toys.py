"""Toy worlds that a peer must solve, with their truth.

Axes: S slates, M candidates, N list positions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from training.baselines.base import PEERS, Fitted
from training.data.arrays import SlateArrays
from training.settings import OptimSettings, override

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

M, N = 6, 3
SPEC = FeatureSpec(
    user=FeatureGroup(dense=(Dense(name="age"),)),
    item=FeatureGroup(
        categorical=(Categorical(name="colour", vocabulary=("red", "green", "blue"), width=16),),
        dense=(Dense(name="merit"),),
    ),
    list_size=N,
    candidate_buckets=(16,),
    feedback=(FeedbackKind(kind="click", type="binary"),),
    utility="click",
)

Truth = Callable[[SlateArrays, Ints], Floats]

#: Settings with which a peer learns a toy within seconds.
SMALL: dict[str, dict[str, Any]] = {
    "dnn": {"width": 16, "layers": 1, "optim.epochs": 4},
    "dcn": {"width": 8, "layers": 1, "hidden": 32, "optim.epochs": 4},
    "prm": {"width": 16, "layers": 1, "optim.learning_rate": 1e-2},
    "edge_rerank": {"width": 16, "layers": 1, "beam": 3, "optim.epochs": 4},
    "pier": {
        "width": 16,
        "layers": 1,
        "pool": 30,
        "keep": 20,
        "optim.learning_rate": 1e-2,
        "optim.batch_size": 32,
        "optim.epochs": 6,
    },
    "seq2slate": {"width": 16, "layers": 1, "optim.learning_rate": 1e-2},
    "nar4rec": {
        "width": 16,
        "layers": 1,
        "draws": 40,
        "optim.epochs": 2,
        "evaluator.width": 16,
        "evaluator.layers": 1,
        "evaluator.dropout": 0.0,
        "evaluator.optim.learning_rate": 1e-2,
        "evaluator.optim.epochs": 4,
        "evaluator.optim.batch_size": 64,
        "evaluator.optim.warm_up_steps": 10,
    },
    "lambdamart": {"trees": 40},
}
SMALL |= {"dnn-rates": SMALL["dnn"], "prm-rates": SMALL["prm"]}
OPTIM = OptimSettings(epochs=10, batch_size=64, learning_rate=5e-3, warm_up_steps=10, patience=9)


def small(name: str, **changes: Any) -> Any:
    """Settings of a peer for toys."""
    start = PEERS[name].settings_type()
    common: dict[str, Any] = {"optim": msgspec.to_builtins(OPTIM)}
    common |= {"attention_heads": 2, "dropout": 0.0} if hasattr(start, "attention_heads") else {}
    return override(start, {**common, **SMALL.get(name, {}), **changes})


def slates(
    colour: Ints, merit: Floats, count: Ints, exposed: Ints, clicks: npt.NDArray[np.bool_]
) -> SlateArrays:
    """Arrays of toy lists. colour and merit [S, M]; exposed and clicks [S, N]."""
    size = len(count)
    real = np.arange(colour.shape[1]) < count[:, None]
    dense = np.stack([merit * real, np.zeros_like(merit)], -1)
    names = np.array([f"r{row}" for row in range(size)], object)
    return SlateArrays(
        spec=SPEC,
        item_cat=((colour + 2) * real).astype(np.int32)[..., None],
        item_dense=dense.astype(np.float32),
        user_cat=np.zeros((size, 1), np.int32),
        user_dense=np.zeros((size, 2), np.float32),
        count=count.astype(np.int32),
        exposed=exposed,
        feedback=(clicks & (exposed >= 0)).astype(np.float32)[..., None],
        request_id=names,
        user=names,
        time=np.arange(size),
        items=np.full(colour.shape, "i", object),
        utility_scale=1.0,
        log_prob=np.full(exposed.shape, np.nan),
        temperature=np.zeros(size),
        fallback=np.full(size, "", object),
    )


def drawn_lists(size: int, rng: np.random.Generator, m: int = M) -> Ints:
    """Production shows N of m candidates at random."""
    return np.argsort(rng.random((size, m)), axis=1)[:, :N].astype(np.int64)


@lru_cache(maxsize=8)
def merit_world(size: int, seed: int) -> SlateArrays:
    """One feature decides the click; colours and places say nothing. The given order is random."""
    rng = np.random.default_rng(seed)
    merit, exposed = rng.normal(size=(size, M)), drawn_lists(size, rng)
    wanted = np.take_along_axis(merit_click(merit), exposed, 1)
    clicks = rng.random(exposed.shape) < wanted
    colour = rng.integers(0, 3, (size, M))
    return slates(colour, merit, np.full(size, M), exposed, clicks)


def merit_click(merit: Floats) -> Floats:
    return 1 / (1 + np.exp(2 - 3 * merit))


def merit_truth(arrays: SlateArrays, orders: Ints) -> Floats:
    """Expected clicks of each list [S]."""
    wanted = merit_click(arrays.item_dense[..., 0].astype(float))
    return (np.take_along_axis(wanted, orders.clip(0), 1) * (orders >= 0)).sum(1)


@lru_cache(maxsize=8)
def repeats_world(size: int, seed: int) -> SlateArrays:
    """An item is clicked (0.9) only where no item of its colour stands before it.

    Of six candidates four are of one colour, which differs from request to request, and one of
    each other colour. The colours are alike in all else, so a function of the item alone can only
    rank them the same way in every request, while the best list has one of each.
    """
    rng = np.random.default_rng(seed)
    often = rng.integers(0, 3, size)
    colour = (often[:, None] + np.array([0, 0, 0, 0, 1, 2])) % 3
    colour = np.take_along_axis(colour, np.argsort(rng.random((size, M)), axis=1), 1)
    exposed = drawn_lists(size, rng)
    clicks = rng.random(exposed.shape) < 0.9 * fresh(np.take_along_axis(colour, exposed, 1))
    return slates(colour, np.zeros((size, M)), np.full(size, M), exposed, clicks)


def fresh(colours: Ints) -> npt.NDArray[np.bool_]:
    """Where no item of the same colour stands before [S, N]."""
    same = colours[:, :, None] == colours[:, None, :]
    before = np.tri(colours.shape[1], k=-1, dtype=bool)
    return ~(same & before).any(2)


def repeats_truth(arrays: SlateArrays, orders: Ints) -> Floats:
    """Expected clicks of each list [S]."""
    colour = np.take_along_axis(arrays.item_cat[..., 0].astype(np.int64), orders, 1)
    return 0.9 * fresh(colour).sum(1)


#: What the best function of the item alone earns in ``repeats_world``: with colours ranked 1, 2, 3
#: and three places, the common colour being first gives one click, second two, third three.
POINTWISE_BOUND = 0.9 * (1 + 2 + 3) / 3
BEST = 0.9 * 3


def rerank_all(fitted: Fitted, arrays: SlateArrays) -> Ints:
    """Lists of all slates [S, n]."""
    return np.concatenate([fitted.rerank(batch).numpy() for batch in arrays.batches(256)])


@lru_cache(maxsize=32)
def fitted(name: str, world: str) -> tuple[Fitted, tuple[dict[str, float], ...]]:
    """A peer trained on a toy world, and what it told of its epochs. Cached."""
    make, size = {"merit": (merit_world, 1000), "repeats": (repeats_world, 3000)}[world]
    changes = {"optim.epochs": 4} if world == "merit" else {}
    told: list[dict[str, float]] = []
    made = PEERS[name].fit(
        make(size, 1),
        make(400, 2),
        SPEC,
        small(name, **changes),
        0,
        lambda **one: told.append(one),
    )
    return made, tuple(told)

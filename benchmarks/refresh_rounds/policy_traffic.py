"""A policy's own traffic, without a server: lists drawn with exploration, and what users did.

Axes: S slates, M candidates, N list positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from deltalake import write_deltalake

from contracts.features import FeatureSpec
from contracts.feedback_table import DAY, day_of
from contracts.slate_columns import to_table
from contracts.slates import Feedback, Slate
from streaming.feedback_table.opening import create_or_open
from training.data.arrays import SlateArrays, encode_table
from training.decoding.run import make_decode
from training.model.gen_reranker import GenReranker
from training.sources.world import Requests, World
from training.sources.world_requests import rerank_request

Orders = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BATCH = 512
#: A user looks at a position for so long.
_MS_PER_POSITION = 1000


@dataclass(frozen=True)
class Asked:
    """Requests of a world, encoded once for any number of policies.

    Attributes:
        slates: the requests with the given order in the place of a list; arrays: the same.
    """

    world: World
    requests: Requests
    slates: tuple[Slate, ...]
    arrays: SlateArrays

    def true_clicks(self, order: Orders) -> Floats:
        """Exact expected clicks [S] of lists [S, N] of candidate indices."""
        items = np.take_along_axis(self.requests.candidates, order, axis=1)
        total: Floats = self.world.expected("click", self.requests.users, items).sum(axis=1)
        return total


def ask(
    world: World, spec: FeatureSpec, count: int, seed: Sequence[int], start_ms: int, span_ms: int
) -> Asked:
    """Draw requests, spread evenly over ``span_ms``."""
    drawn = world.draw(count, np.random.default_rng(list(seed)))
    name = "-".join(map(str, seed))
    given = tuple(range(min(spec.list_size, world.settings.candidates)))
    slates = []
    for row in range(count):
        request = rerank_request(world, drawn, row, f"b{name}-{row}", "benchmark")
        slates.append(
            Slate(
                request_id=request.request_id,
                user=request.user,
                time=start_ms + row * span_ms // count,
                candidates=request.candidates,
                exposed=given,
                user_features=request.user_features,
                surface=request.surface,
            )
        )
    table = to_table(slates, spec).combine_chunks()
    return Asked(world, drawn, tuple(slates), encode_table(table, spec))


@torch.inference_mode()
def lists_of(
    model: GenReranker, asked: Asked, temperature: float = 0.0, seed: int = 0
) -> tuple[Orders, Floats]:
    """Lists [S, N] and the log-probability of each choice [S, N]; temperature 0 is greedy."""
    decode = make_decode(model, asked.arrays.spec.list_size)
    orders, log_probs = [], []
    for batch in asked.arrays.batches(_BATCH):
        z, prior = model.encode(batch)
        heat = torch.full((batch.size, 1), temperature)
        order, log_prob, _ = decode(z, prior, heat, (batch.row + seed * len(asked.arrays))[:, None])
        orders.append(order.numpy().astype(np.int64))
        log_probs.append(log_prob.numpy().astype(np.float64))
    return np.concatenate(orders), np.concatenate(log_probs)


def live_slates(
    model: GenReranker, asked: Asked, release: str, temperature: float, seed: int
) -> list[Slate]:
    """What a release showed to these requests, and what the users did."""
    orders, log_probs = lists_of(model, asked, temperature, seed)
    items = np.take_along_axis(asked.requests.candidates, orders, axis=1)
    acts = asked.world.act(asked.requests.users, items, np.random.default_rng([seed, 3]))
    return [
        msgspec.structs.replace(
            slate,
            exposed=tuple(orders[row].tolist()),
            log_prob=tuple(log_probs[row].tolist()),
            release=release,
            temperature=temperature,
            seed=seed,
            feedback=tuple(
                Feedback(
                    position=int(position),
                    kind=kind,
                    value=float(values[row, position]),
                    time=slate.time + _MS_PER_POSITION * (int(position) + 1),
                )
                for kind, values in acts.items()
                for position in np.flatnonzero(values[row])
            ),
        )
        for row, slate in enumerate(asked.slates)
    ]


def append(table: Path, slates: Sequence[Slate], spec: FeatureSpec) -> None:
    """Add slates to a feedback table in one commit; the table is made where there is none."""
    rows = to_table(slates, spec)
    days = pa.array([day_of(slate.time) for slate in slates], pa.string())
    write_deltalake(create_or_open(str(table), spec), rows.append_column(DAY, days), mode="append")

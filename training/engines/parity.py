"""The parity gate: engines against the eager model, and each row against itself in company.

Nothing is published without it. On real requests, greedy and sampled, it compares

* ``parity.eager``: the engines with the eager model,
* ``parity.alone``: a row of a batch with the same row as a batch of its own,
* ``parity.padded``: a batch with the same batch padded to the next larger bucket.

Each batch is decoded freely and, at the first temperature, within rules too: pins and a group
limit that differ from row to row.

Each comparison makes two gates. ``*.score``: the worst absolute difference of Z, PRIOR (both at
real candidates) and of LOG_PROB where the orders agree. ``*.order``: how many rows have another
order. A differing order is excused as a tie where, at its first differing position, both sides
chose with the same log-probability within the tolerance; but of ties, too, only a small share of
rows is excused, for a broken engine may well be confident in the wrong items.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from contracts.encoding import EncodedBatch
from contracts.reading import Strict
from contracts.releases import Gate
from training.decoding.choice import gumbel_lists

EAGER, ALONE, PADDED = "parity.eager", "parity.alone", "parity.padded"
REQUIRED_GATES = tuple(
    f"{name}.{kind}" for name in (EAGER, ALONE, PADDED) for kind in ("order", "score")
)
#: Begins the names of gates that did not run the engine files, but what they were built from.
GRAPH = "parity.graph"

Encode = Callable[..., tuple[torch.Tensor, torch.Tensor]]
Decode = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]


class ParitySettings(Strict, kw_only=True, frozen=True):
    """Attributes:
    score: largest allowed absolute difference of Z, PRIOR and LOG_PROB (natural log).
    tied_rows: share of rows whose differing order may be excused as a tie.
    temperatures: each request is decoded at every one of these.
    """

    score: float = 1e-4
    tied_rows: float = 0.01
    temperatures: tuple[float, ...] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.score > 0:
            raise ValueError(f"score is {self.score}; allowed: above 0")
        if not 0 <= self.tied_rows < 1:
            raise ValueError(f"tied_rows is {self.tied_rows}; allowed: 0 to below 1")
        if not self.temperatures or min(self.temperatures) < 0:
            raise ValueError(f"temperatures are {self.temperatures}; allowed: 0 or above")


@dataclass(frozen=True)
class Engines:
    """An encoder and a decoder with the engine interface of docs/architecture.md."""

    encode: Encode
    decode: Decode
    list_size: int


@dataclass(frozen=True)
class Answer:
    """What the engines made of a batch; all on the CPU."""

    z_BMD: torch.Tensor
    prior_BM: torch.Tensor
    order_BN: torch.Tensor
    log_prob_BN: torch.Tensor
    relaxed_B2: torch.Tensor


@dataclass
class _Tally:
    """Differences of one comparison, gathered over batches."""

    worst: float = 0.0
    rows: int = 0
    tied: int = 0
    differing: int = 0
    first_score: str = ""
    first_order: str = ""
    first_tie: str = ""


def parity_gates(
    eager: Engines,
    engines: Engines,
    batches: Iterable[EncodedBatch],
    buckets: Sequence[int],
    settings: ParitySettings | None = None,
) -> tuple[Gate, ...]:
    """Run all comparisons over ``batches`` of real requests.

    Args:
        buckets: the feature spec's candidate buckets, ascending.

    Returns:
        Six gates, ``REQUIRED_GATES`` in order. A gate's value is the worst difference or the
        number of rows; its detail names the first row that failed.

    Raises:
        ValueError: there is no batch.
    """
    settings = settings or ParitySettings()
    tallies = {name: _Tally() for name in (EAGER, ALONE, PADDED)}
    for number, batch in enumerate(batches):
        wider = [bucket for bucket in buckets if bucket > batch.item_cat.shape[1]]
        runs = [(temperature, False) for temperature in settings.temperatures]
        for temperature, ruled in (*runs, (settings.temperatures[0], True)):
            where = f"batch {number} at temperature {temperature:g}{' within rules' * ruled}"
            # Row numbers as seeds, so that a row keeps its own when it is alone.
            seeds = list(range(len(batch.count)))
            ours = answer(engines, batch, temperature, seeds, ruled)
            theirs = answer(eager, batch, temperature, seeds, ruled)
            drawn = _noise(seeds, engines.list_size, ours) if temperature else None
            _compare(tallies[EAGER], theirs, ours, batch.count, where, settings.score, drawn)
            alone = _alone(engines, batch, temperature, seeds, ruled)
            _compare(tallies[ALONE], alone, ours, batch.count, where, settings.score, drawn)
            if wider:
                padded = answer(engines, pad(batch, wider[0]), temperature, seeds, ruled)
                _compare(tallies[PADDED], ours, padded, batch.count, where, settings.score, drawn)
    if not tallies[EAGER].rows:
        raise ValueError("no request to check parity with; allowed: at least one batch")
    return tuple(gate for name, tally in tallies.items() for gate in _gates(name, tally, settings))


def answer(
    engines: Engines,
    batch: EncodedBatch,
    temperature: float,
    seeds: Sequence[int],
    ruled: bool = False,
) -> Answer:
    """One pass through both engines; ``ruled`` within the rules of ``seeded_rules``."""
    rows = len(batch.count)
    with torch.inference_mode():
        z_BMD, prior_BM = engines.encode(*encoder_inputs(batch))
        order_BN, log_prob_BN, _, relaxed_B2 = engines.decode(
            z_BMD,
            prior_BM,
            torch.full((rows, 1), temperature),
            torch.tensor(seeds, dtype=torch.int64)[:, None],
            *(seeded_rules if ruled else no_rules)(seeds, engines.list_size, prior_BM.size(1)),
        )
    return Answer(z_BMD.cpu(), prior_BM.cpu(), order_BN.cpu(), log_prob_BN.cpu(), relaxed_B2.cpu())


def no_rules(seeds: Sequence[int], list_size: int, padded: int) -> tuple[torch.Tensor, ...]:
    """PINNED, GROUP and LIMIT of requests without rules."""
    rows = len(seeds)
    return (
        torch.full((rows, list_size), -1, dtype=torch.int32),
        torch.full((rows, padded), -1, dtype=torch.int32),
        torch.zeros(rows, 2, dtype=torch.int32),
    )


def seeded_rules(seeds: Sequence[int], list_size: int, padded: int) -> tuple[torch.Tensor, ...]:
    """PINNED, GROUP and LIMIT that follow from each row's seed alone, whatever its padding.

    Candidate 1 + seed % 5 is pinned at position seed % n (where there is such a candidate), and at
    most one of each three neighbouring candidates may stand among two neighbours.
    """
    pinned, _, limit = no_rules(seeds, list_size, padded)
    for row, seed in enumerate(seeds):
        pinned[row, seed % list_size] = 1 + seed % 5
    limit[:] = torch.tensor([1, 2], dtype=torch.int32)
    group = torch.arange(padded, dtype=torch.int32) // 3
    return pinned, group.expand(len(seeds), -1).contiguous(), limit


def encoder_inputs(batch: EncodedBatch) -> tuple[torch.Tensor, ...]:
    """The encoder's tensors in the order of the engine interface."""
    return (
        torch.from_numpy(batch.item_cat),
        torch.from_numpy(batch.item_dense),
        torch.from_numpy(batch.user_cat),
        torch.from_numpy(batch.user_dense),
        torch.from_numpy(batch.count)[:, None],
    )


def pad(batch: EncodedBatch, width: int) -> EncodedBatch:
    """The same requests, padded to ``width`` candidates."""
    more = ((0, 0), (0, width - batch.item_cat.shape[1]), (0, 0))
    return EncodedBatch(
        item_cat=np.pad(batch.item_cat, more),
        item_dense=np.pad(batch.item_dense, more),
        user_cat=batch.user_cat,
        user_dense=batch.user_dense,
        count=batch.count,
    )


def _alone(
    engines: Engines, batch: EncodedBatch, temperature: float, seeds: Sequence[int], ruled: bool
) -> Answer:
    rows = [
        answer(engines, _row(batch, index), temperature, [seed], ruled)
        for index, seed in enumerate(seeds)
    ]
    return Answer(
        z_BMD=torch.cat([row.z_BMD for row in rows]),
        prior_BM=torch.cat([row.prior_BM for row in rows]),
        order_BN=torch.cat([row.order_BN for row in rows]),
        log_prob_BN=torch.cat([row.log_prob_BN for row in rows]),
        relaxed_B2=torch.cat([row.relaxed_B2 for row in rows]),
    )


def _row(batch: EncodedBatch, index: int) -> EncodedBatch:
    only = slice(index, index + 1)
    return EncodedBatch(
        item_cat=batch.item_cat[only],
        item_dense=batch.item_dense[only],
        user_cat=batch.user_cat[only],
        user_dense=batch.user_dense[only],
        count=batch.count[only],
    )


def _noise(seeds: Sequence[int], list_size: int, given: Answer) -> torch.Tensor:
    seed_B1 = torch.tensor(seeds, dtype=torch.int64)[:, None]
    return gumbel_lists(seed_B1, list_size, given.prior_BM.size(1))


def _compare(
    tally: _Tally,
    one: Answer,
    two: Answer,
    count: np.ndarray,
    where: str,
    limit: float,
    noise_BNM: torch.Tensor | None,
) -> None:
    """Add the rows of two answers to the same requests to a tally."""
    for row, candidates in enumerate(count.tolist()):
        tally.rows += 1
        place = f"{where}, row {row} ({candidates} candidates)"
        gap = max(
            _gap(one.z_BMD[row, :candidates], two.z_BMD[row, :candidates]),
            _gap(one.prior_BM[row, :candidates], two.prior_BM[row, :candidates]),
        )
        left, right = one.order_BN[row].tolist(), two.order_BN[row].tolist()
        if left == right:
            gap = max(gap, _gap(one.log_prob_BN[row], two.log_prob_BN[row]))
            gap = max(gap, _gap(one.relaxed_B2[row], two.relaxed_B2[row]))
        else:
            at = next(i for i, (a, b) in enumerate(zip(left, right)) if a != b)
            told = f"{place}: {left} against {right}"
            chosen = one.log_prob_BN[row, at], two.log_prob_BN[row, at]
            tied = _gap(*chosen) <= limit
            if noise_BNM is not None and left[at] >= 0 and right[at] >= 0:
                drawn_M = noise_BNM[row, at]
                sums = chosen[0] + drawn_M[left[at]], chosen[1] + drawn_M[right[at]]
                tied = tied or _gap(*sums) <= limit
            if tied:
                tally.tied += 1
                tally.first_tie = tally.first_tie or told
            else:
                tally.differing += 1
                tally.first_order = tally.first_order or told
        if gap > limit:
            tally.first_score = tally.first_score or f"{place}: {gap:.3g}"
        tally.worst = max(tally.worst, gap)


def _gap(one: torch.Tensor, two: torch.Tensor) -> float:
    """Largest absolute difference; NaN anywhere, or another shape, is as bad as can be."""
    if one.shape != two.shape:
        return sys.float_info.max
    gap = float((one.double() - two.double()).abs().max()) if one.numel() else 0.0
    return gap if gap < float("inf") else sys.float_info.max


def _gates(name: str, tally: _Tally, settings: ParitySettings) -> tuple[Gate, Gate]:
    excused = tally.tied <= settings.tied_rows * tally.rows
    differing = tally.differing + (0 if excused else tally.tied)
    detail = f"{tally.rows} rows, {tally.tied} tied"
    first_order = tally.first_order or ("" if excused else tally.first_tie)
    order = Gate(
        name=f"{name}.order",
        passed=differing == 0,
        value=differing,
        limit=0.0,
        detail=f"{detail}; first: {first_order}" if first_order else detail,
    )
    score = Gate(
        name=f"{name}.score",
        passed=tally.worst <= settings.score,
        value=tally.worst,
        limit=settings.score,
        detail=f"first: {tally.first_score}" if tally.first_score else detail,
    )
    return order, score

"""Latency of the candidate's engines beside the champion's, in one run on one core.

In processor time, and in turns on the same requests: by the wall clock, a busy machine has been
seen to interrupt always the same one of the two. This is a gate against a candidate that became
slower by its shape or its engines, not a serving benchmark.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from contracts.encoding import EncodedBatch
from contracts.reading import ContractError, Strict
from contracts.releases import Engine
from training.engines.formats import engine_format
from training.engines.parity import Engines, answer

WARM_UP, MEASURED = 8, 60


class Latency(Strict, kw_only=True, frozen=True):
    """Medians of encoder and decoder together for single requests, in ms of processor time;
    ``why`` if not measured.

    ``ratio`` is the median of candidate to champion, request by request.
    """

    champion_ms: float = 0.0
    candidate_ms: float = 0.0
    ratio: float = 1.0
    why: str = ""


def measure(
    champion: Path,
    engines: tuple[Engine, ...],
    candidate: Path,
    candidate_engines: tuple[Engine, ...],
    request: EncodedBatch,
    list_size: int,
) -> Latency:
    """Time both on single requests, the rows of a padded batch, greedily.

    Args:
        champion, candidate: folders that the engines' ``file`` is relative to.
    """
    try:
        old = _load(champion, engines, list_size)
        new = _load(candidate, candidate_engines, list_size)
    except ContractError as error:
        if all(engine.format == "torchscript" for engine in (*engines, *candidate_engines)):
            raise  # it runs anywhere: the file is damaged
        return Latency(why=f"not measured: {error}")
    rows = [_single(request, row % len(request.count)) for row in range(WARM_UP + MEASURED)]
    times = np.array([[_seconds(old, row), _seconds(new, row)] for row in rows])[WARM_UP:]
    medians = np.median(times, axis=0) * 1000
    return Latency(
        champion_ms=float(medians[0]),
        candidate_ms=float(medians[1]),
        ratio=float(np.median(times[:, 1] / times[:, 0])),
    )


def _load(folder: Path, engines: tuple[Engine, ...], list_size: int) -> Engines:
    form = next(engine.format for engine in engines if engine.part == "encoder")
    return engine_format(form).load(folder, engines, list_size)


def _seconds(engines: Engines, request: EncodedBatch) -> float:
    started = time.process_time()
    answer(engines, request, 0.0, [0])
    return time.process_time() - started


def _single(batch: EncodedBatch, row: int) -> EncodedBatch:
    only = slice(row, row + 1)
    return EncodedBatch(
        item_cat=batch.item_cat[only],
        item_dense=batch.item_dense[only],
        user_cat=batch.user_cat[only],
        user_dense=batch.user_dense[only],
        count=batch.count[only],
    )

"""What benchmarks/peers.py and benchmarks/growth.py share: calls, clocks, and rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from torch import Tensor

from benchmarks.arithmetic import ShapedLimit, operations, products_of
from benchmarks.peer_networks import GREF, SERVED, Engine, Run
from benchmarks.peer_report import Timing
from benchmarks.rounds import Call, Clock, ratio, spread
from contracts.features import FeatureSpec
from training.settings import ModelSettings


def bound(run: Run, inputs: tuple[Tensor, ...]) -> Call:
    """The call of a network with its inputs."""
    return lambda: run(*inputs)


def make_folders(*files: Path | None) -> None:
    """Folders of files that are written at the end; what cannot be made ought to fail at once."""
    for file in files:
        if file is not None:
            if file.is_dir():
                raise ValueError(f"{file} is a folder; allowed: a file to write")
            file.parent.mkdir(parents=True, exist_ok=True)


def clock_of(given: str, device: str, threads: int) -> Clock:
    """A ``--clock`` that fits.

    Raises:
        ValueError: no such clock, or one that would mislead.
    """
    if given not in get_args(Clock):
        raise ValueError(f"--clock {given}; allowed: {', '.join(get_args(Clock))}")
    if given == "cpu" and (device != "cpu" or threads > 1):
        raise ValueError("--clock cpu adds threads up; allowed: on the CPU with --threads 1")
    return given  # type: ignore[return-value]


def timing(
    name: str,
    engine: Engine,
    spec: FeatureSpec,
    settings: ModelSettings,
    size: tuple[int, int],
    own: Sequence[float],
    of_gref: Sequence[float],
    rate: float,
    limit: ShapedLimit,
) -> Timing:
    """A row of the report.

    Args:
        size: rows of the batch, and candidates m.
        own, of_gref: milliseconds of this network and of GReF in the same format, by round.
        rate: operations a second of large products.
    """
    products = products_of(GREF if name == SERVED else name, spec, settings, *size)
    return Timing(
        network=name,
        engine=engine,
        batch=size[0],
        candidates=size[1],
        list_size=spec.list_size,
        ms=spread(own),
        to_gref=ratio(own, of_gref),
        operations=operations(products),
        limit_ms=1e3 * operations(products) / rate,
        shaped_ms=1e3 * limit.seconds(products),
    )

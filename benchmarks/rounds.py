"""Times of several calls, taken by turns, so that what the machine does besides hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import torch

Call = Callable[[], object]
Clock = Literal["wall", "cpu"]

#: TorchScript profiles in the first call of a shape and optimises in the second.
WARM_UP = 3


class Spread(msgspec.Struct, frozen=True):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)}-{_short(self.high)})"


def _short(value: float) -> str:
    """Three digits, as far as they are worth."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def spread(values: Sequence[float]) -> Spread:
    """Of any number of values, at least one."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return Spread(median, low, high)


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Of two calls' times, round by round: the two of a round met the same machine."""
    return spread([a / b for a, b in zip(over, under)])


def interleaved(
    calls: Mapping[str, Call], rounds: int, device: str = "cpu", clock: Clock = "wall"
) -> dict[str, list[float]]:
    """Milliseconds of each call in each round; every round begins with another call.

    Args:
        device: on ``cuda`` the GPU's own events are read, from launch to end.
        clock: ``cpu`` is this process's processor time, for a machine that others use: equal to
            ``wall`` for one thread that is never interrupted.
    """
    stopwatch = _on_gpu if device == "cuda" else _on_cpu(clock)
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for name in names:
            for _ in range(WARM_UP):
                calls[name]()
        collecting = gc.isenabled()
        gc.disable()
        try:
            for number in range(rounds):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    times[name].append(stopwatch(calls[name]))
        finally:
            if collecting:
                gc.enable()
    return times


def _on_cpu(clock: Clock) -> Callable[[Call], float]:
    read = time.process_time if clock == "cpu" else time.perf_counter

    def stopwatch(call: Call) -> float:
        started = read()
        call()
        return 1e3 * (read() - started)

    return stopwatch


def _on_gpu(call: Call) -> float:
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()  # type: ignore[no-untyped-call]
    call()
    end.record()  # type: ignore[no-untyped-call]
    end.synchronize()  # type: ignore[no-untyped-call]
    return float(start.elapsed_time(end))  # type: ignore[no-untyped-call]

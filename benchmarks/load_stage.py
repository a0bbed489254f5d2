"""One stage of load from several generator processes, and what of the machine each side took."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.load_generator import Outcome, Stage
from benchmarks.process_usage import cpu_seconds
from contracts.reading import Strict

_GENERATOR = Path(__file__).resolve().parent / "load_generator.py"
#: Processes of a generator: more would only take from the server.
MOST_PROCESSES = 8


class StageResult(Strict, kw_only=True, frozen=True):
    """Measured in one stage.

    Attributes:
        rate: requests per second that were offered; 0 in a closed loop.
        callers: of a closed loop; 0 in an open one.
        requests: how many were sent.
        throughput: answers per second.
        failed: requests without an answer, by gRPC status.
        p50, p99, p999: milliseconds from the intended time to the answer. A request without one
            counts as endless: None where the percentile is among those.
        server_cpu, generator_cpu: share of the machine's processors that each side took.
        server_ms: the server's processor time for an answer, ms. It hardly feels what else runs.
        late_p99_ms: how long after its intended time a request was sent, at most, in 99 of 100.
    """

    rate: float
    callers: int
    requests: int
    throughput: float
    failed: dict[str, int]
    p50: float | None
    p99: float | None
    p999: float | None
    server_cpu: float
    generator_cpu: float
    server_ms: float | None
    late_p99_ms: float


class Generators:
    """Generator processes, kept over many stages; as a context they are ended with it."""

    def __init__(self, processes: int) -> None:
        """
        Raises:
            ValueError: not 1 to 8 processes.
        """
        if not 1 <= processes <= MOST_PROCESSES:
            raise ValueError(f"{processes} processes; allowed: 1 to {MOST_PROCESSES}")
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(_GENERATOR)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(processes)
        ]

    def __enter__(self) -> Generators:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            if error is not None:
                process.kill()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait()
            process.stdout.close()

    def run(
        self,
        url: str,
        messages: Path,
        servers: Sequence[int],
        *,
        rate: float = 0.0,
        callers: int = 0,
        seconds: float,
        timeout_s: float = 2.0,
        seed: int = 0,
        connect_s: float = 30.0,
    ) -> StageResult:
        """Offer ``rate`` requests per second, or let ``callers`` ask, all processes together.

        Args:
            messages: file of serialised requests (``write_messages``).
            servers: pids whose processor time is the server's.

        Raises:
            RuntimeError: a generator ended early.
        """
        count = min(len(self._processes), callers) if callers else len(self._processes)
        before = _cpu_seconds(servers)
        for index, process in enumerate(self._processes[:count]):
            share = callers // count + (index < callers % count)
            stage = Stage(
                url=url,
                messages=str(messages),
                rate=rate / count,
                callers=share,
                seconds=seconds,
                timeout_s=timeout_s,
                seed=seed * MOST_PROCESSES + index,
                connect_s=connect_s,
            )
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(stage) + b"\n")
            process.stdin.flush()
        outcomes = [_outcome(process) for process in self._processes[:count]]
        return _joined(outcomes, rate, callers, _cpu_seconds(servers) - before)


def write_messages(path: Path, messages: Sequence[bytes]) -> Path:
    """Serialised requests as the generators read them."""
    path.write_bytes(msgspec.msgpack.encode(list(messages)))
    return path


def _outcome(process: subprocess.Popen[bytes]) -> Outcome:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a load generator ended with exit code {process.wait()}")
    return msgspec.json.decode(line, type=Outcome)


def _joined(
    outcomes: Sequence[Outcome], rate: float, callers: int, server_cpu_s: float
) -> StageResult:
    failed: Counter[str] = Counter()
    for outcome in outcomes:
        failed.update(outcome.failed)
    answered = np.concatenate([np.asarray(one.latencies_ms, float) for one in outcomes])
    all_ms = np.concatenate([answered, np.full(failed.total(), np.inf)])
    wall_s = max(outcome.wall_s for outcome in outcomes)
    machine_s = wall_s * len(os.sched_getaffinity(0))
    p50, p99, p999 = (_percentile(all_ms, at) for at in (50, 99, 99.9))
    return StageResult(
        rate=rate,
        callers=callers,
        requests=len(all_ms),
        throughput=len(answered) / wall_s,
        failed=dict(failed),
        p50=p50,
        p99=p99,
        p999=p999,
        server_cpu=server_cpu_s / machine_s,
        server_ms=1000 * server_cpu_s / len(answered) if len(answered) else None,
        generator_cpu=sum(outcome.cpu_s for outcome in outcomes) / machine_s,
        late_p99_ms=max(outcome.late_p99_ms for outcome in outcomes),
    )


def _percentile(milliseconds: npt.NDArray[np.float64], at: float) -> float | None:
    if not len(milliseconds):
        return None
    value = float(np.percentile(milliseconds, at, method="higher"))
    return value if np.isfinite(value) else None


def _cpu_seconds(pids: Sequence[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids)

"""What a soak saw: its samples, whether memory is flat, and the plot."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from contracts.reading import Strict

#: Growth for a million events that still counts as flat, as a share of the median.
FLAT_SHARE = 0.1
#: A member must have been seen so often, and over so large a share of the events, to be judged.
_MIN_SAMPLES, _MIN_SHARE = 20, 0.2


class Sample(Strict, kw_only=True, frozen=True):
    """One moment: messages sent and read (committed), open slates, memory by member (pid)."""

    seconds: float
    sent: int
    read: int
    open_slates: float
    rss_mib: dict[str, float]


class MemoryVerdict(Strict, kw_only=True, frozen=True):
    """One member after the warm-up: its memory, and its growth for a million events read."""

    pid: str
    events: int
    median_mib: float
    slope_mib: float
    is_flat: bool


class SoakResult(Strict, kw_only=True, frozen=True):
    """The end of a soak."""

    events: int
    seconds: float
    cpu_seconds: float
    slates: int
    rows: int
    rows_twice: int
    kills: int
    broker_kills: int
    exit_codes: list[int]
    memory: list[MemoryVerdict]

    @property
    def is_good(self) -> bool:
        return (
            self.rows == self.slates
            and self.rows_twice == 0
            and not any(self.exit_codes)
            and all(one.is_flat for one in self.memory)
        )


def judge_memory(samples: list[Sample], warm_up: int) -> list[MemoryVerdict]:
    """Growth of each member that lived long enough, without its own first quarter.

    The end is left out too: there all open slates close at once, in one commit.

    Args:
        warm_up: messages after which nothing of the group fills up any more.
    """
    most = max(sample.sent for sample in samples)
    samples = [sample for sample in samples if sample.sent < most]
    total = max(sample.read for sample in samples)
    verdicts = []
    for pid in sorted({pid for sample in samples for pid in sample.rss_mib}):
        life = [(sample.read, sample.rss_mib[pid]) for sample in samples if sample.rss_mib.get(pid)]
        life = [one for one in life[len(life) // 4 :] if one[0] >= warm_up]
        if len(life) < _MIN_SAMPLES or life[-1][0] - life[0][0] < _MIN_SHARE * total:
            continue
        read, rss = (np.array(column, dtype=float) for column in zip(*life))
        slope = float(np.polyfit(read / 1e6, rss, 1)[0])
        median = float(statistics.median(rss))
        verdicts.append(
            MemoryVerdict(
                pid=pid,
                events=int(read[-1] - read[0]),
                median_mib=median,
                slope_mib=slope,
                is_flat=bool(slope <= FLAT_SHARE * median),
            )
        )
    return verdicts


def plot(samples: list[Sample], out: Path) -> None:
    """Memory, open slates, lag and throughput over time, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    seconds = [sample.seconds for sample in samples]
    figure, axes = plt.subplots(4, 1, figsize=(9, 11), sharex=True)
    for pid in sorted({pid for sample in samples for pid in sample.rss_mib}):
        points = [(s.seconds, s.rss_mib[pid]) for s in samples if s.rss_mib.get(pid)]
        axes[0].plot(*zip(*points), label=f"member {pid}")
    axes[0].set_ylabel("resident memory, MiB")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(fontsize="small", ncols=4)
    axes[1].plot(seconds, [sample.open_slates for sample in samples])
    axes[1].set_ylabel("open slates")
    axes[2].plot(seconds, [sample.sent - sample.read for sample in samples])
    axes[2].set_ylabel("sent, not committed")
    width = 10
    rates = [
        (after.read - before.read) / max(1e-9, after.seconds - before.seconds)
        for before, after in zip(samples, samples[width:])
    ]
    axes[3].plot(seconds[width:], rates)
    axes[3].set_ylabel(f"events a second, over {width} s")
    axes[3].set_xlabel("seconds")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)

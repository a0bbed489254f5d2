"""The report of benchmarks/load.py: tables, a plot, and whether dynamic batching pays."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from benchmarks.load_stage import StageResult
from contracts.reading import Strict

WITH, WITHOUT = "batching", "none"
#: Throughput with batching over throughput without that serving must reach.
LEAST_GAIN = 2.0


class Arm(Strict, kw_only=True, frozen=True):
    """One way of serving, measured: the rounds of the closed loop, the rising rates of the open."""

    name: str
    closed: tuple[StageResult, ...]
    open: tuple[StageResult, ...]

    @property
    def throughput(self) -> float:
        """Answers per second to callers who wait, median of the rounds."""
        return statistics.median(result.throughput for result in self.closed)

    @property
    def p99(self) -> float:
        """Of callers who wait, median of the rounds, ms."""
        return _median(self.closed, lambda one: one.p99)

    def highest_rate(self, p99_limit_ms: float) -> float | None:
        """The highest offered rate up to which every p99 kept the limit."""
        kept = None
        for result in self.open:
            if result.p99 is None or result.p99 > p99_limit_ms:
                break
            kept = result.rate
        return kept


class LoadReport(Strict, kw_only=True, frozen=True):
    """All of a run."""

    candidates: tuple[int, ...]
    callers: int
    seconds: float
    p99_limit_ms: float
    arms: tuple[Arm, ...]

    @property
    def gain(self) -> tuple[float, float] | None:
        """Of batching over none, closed loop: throughput, and p99; None if one was not run."""
        arms = {arm.name: arm for arm in self.arms}
        if WITH not in arms or WITHOUT not in arms:
            return None
        on, off = arms[WITH], arms[WITHOUT]
        return on.throughput / off.throughput, on.p99 / off.p99

    @property
    def holds(self) -> bool:
        return self.gain is not None and self.gain[0] >= LEAST_GAIN and self.gain[1] <= 1.0

    def words(self) -> str:
        """The judgement in one line."""
        assert self.gain is not None
        throughput, p99 = self.gain
        verdict = "holds" if self.holds else "missed"
        return (
            f"{self.callers} callers: batching gives {throughput:.2f} times the throughput of none "
            f"(wanted: {LEAST_GAIN:g}) at {p99:.2f} times its p99 (wanted: at most 1): {verdict}"
        )


def tables(report: LoadReport) -> list[Table]:
    """What people read: the closed loop and the limit of each arm, then every rate."""
    title = f"m = {', '.join(map(str, report.candidates))}: {report.callers} callers who wait"
    summary = Table(
        title=title,
        caption=f"ms; limit: highest rate of arrivals with p99 of at most {report.p99_limit_ms:g} "
        "ms; cpu/list: processor time of the server; server, load: shares of the processors that "
        "the server and the generator took",
    )
    _columns(summary, "lists/s", "p50", "p99", "p99.9", "cpu/list", "server", "load", "limit")
    for arm in report.arms:
        limit = arm.highest_rate(report.p99_limit_ms)
        summary.add_row(
            arm.name,
            f"{arm.throughput:.0f}",
            *(_ms(_median(arm.closed, pick)) for pick in _PERCENTILES),
            _ms(_median(arm.closed, lambda one: one.server_ms)),
            f"{_median(arm.closed, lambda one: one.server_cpu):.0%}",
            f"{_median(arm.closed, lambda one: one.generator_cpu):.0%}",
            "-" if limit is None else f"{limit:.0f}/s",
        )
    rates = Table(
        title="random arrivals, from the intended time",
        caption="failed: without an answer in 2 s or refused; late: p99 of sending after the time",
    )
    _columns(rates, "rate", "lists/s", "p50", "p99", "p99.9", "failed", "load", "late")
    for arm in report.arms:
        for one in arm.open:
            rates.add_row(
                arm.name,
                f"{one.rate:.0f}",
                f"{one.throughput:.0f}",
                *(_ms(_or_endless(pick(one))) for pick in _PERCENTILES),
                f"{sum(one.failed.values()) / max(1, one.requests):.1%}",
                f"{one.generator_cpu:.0%}",
                f"{one.late_p99_ms:.1f}",
            )
        rates.add_section()
    return [summary, rates]


def draw(report: LoadReport, path: Path) -> None:
    """p50 and p99 against the offered rate, and the throughput of callers who wait."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (curves, bars) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(2, 1))
    for index, arm in enumerate(report.arms):
        for style, pick in (("-", _PERCENTILES[1]), (":", _PERCENTILES[0])):
            points = [(one.rate, pick(one)) for one in arm.open if pick(one) is not None]
            curves.plot(
                *zip(*points) if points else ([], []),
                style,
                color=f"C{index}",
                marker="o" if style == "-" else None,
                markersize=3,
                label=arm.name if style == "-" else None,
            )
        bars.barh(len(report.arms) - index, arm.throughput, color=f"C{index}")
        bars.text(0, len(report.arms) - index, f" {arm.name}: p99 {arm.p99:.0f} ms", va="center")
    curves.axhline(report.p99_limit_ms, color="grey", linewidth=0.8)
    curves.set(yscale="log", xlabel="arrivals per second", ylabel="ms from the intended time")
    curves.set_title("random arrivals: p99 (solid), p50 (dotted)")
    curves.legend(fontsize=8)
    bars.set(yticks=[], xlabel="lists per second")
    bars.set_title(f"{report.callers} callers who wait")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _columns(table: Table, *names: str) -> None:
    table.add_column("serving", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")


_PERCENTILES: tuple[Callable[[StageResult], float | None], ...] = (
    lambda one: one.p50,
    lambda one: one.p99,
    lambda one: one.p999,
)


def _median(results: tuple[StageResult, ...], pick: Callable[[StageResult], float | None]) -> float:
    return statistics.median(_or_endless(pick(result)) for result in results)


def _or_endless(value: float | None) -> float:
    return math.inf if value is None else value


def _ms(value: float) -> str:
    return "-" if math.isinf(value) else f"{value:.1f}"

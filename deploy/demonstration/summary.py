"""The demo's last words: what happened, a line each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from contracts.datasets import Dataset
from contracts.reading import read_json
from deploy.demonstration.experiments import Rollouts
from deploy.demonstration.live import Live
from deploy.demonstration.requests import Served
from deploy.demonstration.truth import mean_and_half
from training.evaluate import GIVEN
from training.evaluation.against_baseline import Comparison


@dataclass(frozen=True)
class Story:
    """All that the summary tells; ``live`` and ``plot`` only of a simulated world."""

    dataset: Dataset
    evaluation: Path
    served: Served
    release: Path
    out: Path
    seconds: float
    live: Live | None = None
    plot: Path | None = None


def summary(story: Story) -> Panel:
    """The panel."""
    rows = Table.grid(padding=(0, 2))
    _served(rows, story)
    _held_out(rows, story)
    rows.add_row(
        "over gRPC", f"{story.served.requests} requests, {story.served.fallbacks} fallbacks"
    )
    latency = f"p50 {story.served.p50_ms:.1f} ms, p99 {story.served.p99_ms:.1f} ms at the client"
    rows.add_row("latency", latency)
    if story.live is not None:
        _live(rows, story.live)
    if story.plot is not None:
        rows.add_row("plot", str(story.plot))
    rows.add_row("release", str(story.release))
    rows.add_row("the rest", f"slates, runs, reports, learning curves, logs: {story.out}")
    rows.add_row("again", f"python deploy/local.py up --release {story.release}")
    rows.add_row("took", f"{story.seconds / 60:.1f} minutes")
    note = "differences to the given order, 95 % intervals"
    if story.dataset.source == "simulator":
        note = f"* simulated, exact; {note}"
    return Panel(rows, title="GReF", subtitle=note, expand=False)


def _served(rows: Table, story: Story) -> None:
    if story.served.true_gain is None:
        return
    mean, (gain, half) = story.served.true_given, story.served.true_gain
    share = f"({gain / mean:+.1%} of {mean:.3f})"
    rows.add_row("served lists", f"[bold]{gain:+.3f} +- {half:.3f}[/bold] true clicks* {share}")


def _held_out(rows: Table, story: Story) -> None:
    results = read_json(story.evaluation, Comparison)
    metrics = ("true click*",) if story.dataset.source == "simulator" else ("ndcg", "auc")
    for metric in metrics:
        rows.add_row(f"held-out {metric}", f"{results.get(metric, GIVEN).value.estimate:.4f} given")
        for one in results.results:
            if one.metric == metric and one.difference is not None:
                d = one.difference
                text = f"{d.estimate:+.4f} ({d.low:+.4f} to {d.high:+.4f}) {one.method}"
                rows.add_row("", text)


def _live(rows: Table, live: Live) -> None:
    asked = sum(one.requests for one in live.traffic.values())
    rows.add_row(
        "live traffic",
        f"{asked} requests over gRPC, {live.fallbacks} fallbacks, {live.rows} slates in the "
        f"table, {live.dead_letters} dead letters",
    )
    before, frozen = live.judged["before"], live.judged["r0001"]
    rows.add_row(
        "tastes move", f"r0001 {_gain(before.gain)} before, {_gain(frozen.gain)} after, of clicks*"
    )
    name = live.refreshed["release"]
    if live.refreshed["outcome"] == "published" and name in live.judged:
        won, half = mean_and_half(live.judged[name].clicks - frozen.clicks)
        lost = before.gain[0] - frozen.gain[0]
        share = f", {won / lost:.0%} of the loss" if lost > 0 else ""
        rows.add_row(
            f"refresh: {name}",
            f"[bold]{won:+.3f} +- {half:.3f}[/bold] true clicks* against r0001, same requests"
            f"{share}",
        )
    else:
        rows.add_row("refresh", f"[yellow]refused[/yellow]: {escape(live.refreshed['reason'])}")
    if live.rollouts is not None:
        _rollouts(rows, live.rollouts)
    if live.poisoned is not None:
        word = "refused" if live.poisoned["outcome"] == "refused" else live.poisoned["outcome"]
        rows.add_row("bots' feedback", f"refresh {word}: {escape(_short(live.poisoned['reason']))}")


def _rollouts(rows: Table, rollouts: Rollouts) -> None:
    won = rollouts.won
    lift = next(one for one in won.lifts if one.role == "primary")
    units = sum(arm.units for arm in won.arms)
    word = "promoted" if rollouts.promoted else f"[yellow]{won.verdict}[/yellow]"
    if lift.relative is not None:
        seen = lift.relative
        rows.add_row(
            f"experiment: {word}",
            f"[bold]{seen.estimate:+.1%}[/bold] clicks ({seen.always_low:+.1%} to "
            f"{seen.always_high:+.1%} at any look, {units} users); truth* {rollouts.truth:+.1%}",
        )
    broken = next((one for one in rollouts.harmed.guardrails if one.state == "broken"), None)
    lists = rollouts.harmed.arms[1].lists
    word = "rolled back by the watch" if rollouts.rolled_back else "[red]not found[/red]"
    rows.add_row(
        "broken release",
        f"{word} after {lists} lists" + (f": {escape(broken.why)}" if broken else ""),
    )
    rows.add_row("report", str(rollouts.page))


def _gain(gain: tuple[float, float]) -> str:
    return f"{gain[0]:+.3f} +- {gain[1]:.3f}"


def _short(reason: str, length: int = 90) -> str:
    return reason if len(reason) <= length else f"{reason[:length].rstrip()} ..."

"""Status for people: tables of what is served and of what an experiment has shown."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from deploy.analysis.status import ExperimentStatus, Lift
from deploy.rolling.serving_state import ServingState

_COLOURS = {"ok": "green", "broken": "red", "unknown": "yellow"}
_VERDICTS = {"ship": "green", "roll back": "red", "stop": "yellow", "wait": "cyan"}


def serving_view(state: ServingState) -> RenderableType:
    """Routing against replicas, and every problem."""
    facts = _table(None, "", "")
    facts.add_row("routing", f"{state.routing} [dim]{state.sha}[/]" if state.sha else state.routing)
    facts.add_row("champion", state.champion or "none")
    for name, weights in state.experiments.items():
        told = ", ".join(f"{arm} {weight:g}" for arm, weight in weights.items())
        facts.add_row("experiment", f"{escape(name)} ({escape(told)})")
    parts: list[RenderableType] = [facts]
    if state.replicas:
        table = _table(None, "replica", *state.releases, "also loaded")
        for one in state.replicas:
            cells = [_cell(name, one.loaded, one.silent, one.error) for name in state.releases]
            others = [name for name in one.loaded if name not in state.releases]
            table.add_row(one.address, *cells, ", ".join(others))
        parts += ["", table]
    else:
        parts += ["", "[dim]no replica was asked (--replica)[/]"]
    parts += [Text(f"problem: {words}", style="red") for words in state.problems]
    return Group(*parts)


def experiment_view(status: ExperimentStatus) -> RenderableType:
    """An experiment's arms, lifts and guardrails, the verdict and what to do next."""
    parts: list[RenderableType] = [
        "",
        f"[bold]{escape(status.name)}[/] {status.state}: "
        f"[{_VERDICTS[status.verdict]}]{status.verdict}[/]",
        _arms(status),
        "",
        _lifts(status),
    ]
    if status.guardrails:
        parts += ["", _guardrails(status)]
    srm = status.srm
    state = {True: "[green]ok[/]", False: "[red]mismatch[/]", None: "[dim]too few units[/]"}[srm.ok]
    p = "" if srm.p is None else f" (p {srm.p:.3g})"
    crossed = status.left_out.crossed_units
    parts += ["", f"sample ratio {state}{p}; {crossed} units in two arms"]
    parts += [Text(words) for words in status.words]
    return Group(*parts)


def _arms(status: ExperimentStatus) -> Table:
    table = _table(None, "arm", "release", "weight", "units", "lists", "fallbacks", status.primary)
    for arm in status.arms:
        mean = next((one for one in arm.metrics if one.metric == status.primary), None)
        told = "-" if mean is None or mean.mean is None else f"{mean.mean:.4g}"
        if mean is not None and mean.low is not None and mean.high is not None:
            told += f" ({mean.low:.4g} to {mean.high:.4g})"
        fallbacks = "-" if arm.fallback_share is None else f"{arm.fallback_share:.2%}"
        table.add_row(
            escape(arm.name),
            arm.release,
            f"{arm.weight:g}",
            f"{arm.units:,}",
            f"{arm.lists:,}",
            fallbacks,
            told,
        )
    return table


def _lifts(status: ExperimentStatus) -> Table:
    table = _table(None, "lift", "arm", "estimate", "always valid", "fixed horizon", "")
    for lift in status.lifts:
        table.add_row(escape(lift.metric), escape(lift.arm), *_lift(lift))
    return table


def _lift(lift: Lift) -> tuple[str, str, str, str]:
    effect = lift.relative or lift.absolute
    if effect is None:
        return "-", "-", "-", escape(lift.why)
    form = "{:+.2%}" if lift.relative else "{:+.4g}"

    def span(low: float, high: float) -> str:
        return f"{form.format(low)} to {form.format(high)}"

    fixed = f"{span(effect.low, effect.high)}, p {effect.p:.3g}"
    return (
        form.format(effect.estimate),
        span(effect.always_low, effect.always_high),
        fixed,
        lift.improvement,
    )


def _guardrails(status: ExperimentStatus) -> Table:
    table = _table(None, "guardrail", "arm", "worsening", "limit", "", "")
    for one in status.guardrails:
        value = "-" if one.value is None else f"{one.value:+.4g}"
        state = f"[{_COLOURS[one.state]}]{one.state}[/]"
        table.add_row(
            escape(one.metric), escape(one.arm), value, f"{one.limit:g}", state, escape(one.why)
        )
    return table


def _cell(name: str, loaded: tuple[str, ...], silent: dict[str, str], error: str) -> str:
    if error:
        return "[red]not reached[/]"
    if name not in loaded:
        return "[red]missing[/]"
    return "[red]silent[/]" if name in silent else "[green]answers[/]"


def _table(title: str | None, *heads: str) -> Table:
    table = Table(title=title, box=None, pad_edge=False, show_header=any(heads))
    for head in heads:
        table.add_column(head)
    return table

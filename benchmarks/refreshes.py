"""Refreshes in a row, each on the traffic of the policy before it, judged by the truth.

A closed loop without servers: the champion shows lists with exploration to users of a simulated
world, their feedback goes to a Delta table, ``training/refresh.py`` publishes or refuses, and the
next round is the new champion's. Stationary traffic asks whether refreshes that feed on their own
output do harm; drifting traffic, whether they follow. Every number of clicks is simulated.
"""

from __future__ import annotations

import enum
import shutil
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.refresh_rounds.commands import CommandError
from benchmarks.refresh_rounds.findings import Findings, Interval, Round
from benchmarks.refresh_rounds.loop import Loop, Plan
from benchmarks.refresh_rounds.plot import plot_rounds
from contracts.reading import ContractError, read_yaml, write_json
from training.sources.world import PRESETS, World, WorldSettings

EPILOG = """Examples:

python benchmarks/refreshes.py --traffic stationary --out refreshes/stationary

python benchmarks/refreshes.py --traffic drifting --rounds 10 --out refreshes/drifting
"""

BAD_INPUT = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console, errors = Console(), Console(stderr=True)


class Traffic(str, enum.Enum):
    """Whether tastes move while the rounds pass."""

    stationary = "stationary"
    drifting = "drifting"


@app.command(epilog=EPILOG)
def main(
    out: Annotated[Path, typer.Option(help="Folder of all that it makes; must be new.")],
    traffic: Annotated[Traffic, typer.Option(help="Do tastes move?")] = Traffic.stationary,
    rounds: Annotated[int, typer.Option(min=1, help="Refreshes in a row.")] = 10,
    world: Annotated[
        str, typer.Option(help="noisy, strong, fickle, or a YAML file of settings.")
    ] = "fickle",
    lists: Annotated[int, typer.Option(min=100, help="Slates of each round.")] = 4000,
    first_lists: Annotated[
        int, typer.Option(min=1000, help="Slates that the first champion is trained on.")
    ] = 8000,
    judged: Annotated[int, typer.Option(min=100, help="Fresh requests that judge.")] = 4000,
    temperature: Annotated[float, typer.Option(min=0, help="Of the exploration.")] = 0.5,
    to: Annotated[float, typer.Option(min=0, max=1, help="Drift of the last round.")] = 1.0,
    fresh: Annotated[
        bool, typer.Option(help="Drifting: also train a policy in the new world alone.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 1,
    settings: Annotated[
        Optional[list[str]], typer.Option("--set", help="A setting of the first training.")
    ] = None,
    refresh: Annotated[
        Optional[list[str]],
        typer.Option(help="An argument for training/refresh.py, e.g. --refresh=--set=seed=1."),
    ] = None,
) -> None:
    """Run the rounds; writes findings.json and rounds.png, and prints a line for each round.

    The world of round k has drift ``to * k / rounds`` (drifting), or that of its settings.
    Exit code 0: the rounds were run, whatever they found; 2: bad input.
    """
    torch.set_num_threads(1)
    try:
        base = World(PRESETS[world] if world in PRESETS else read_yaml(world, WorldSettings))
        start_fresh(out)
        moves = traffic is Traffic.drifting
        at = base.settings.drift
        steps = [at + (to - at) * k / rounds if moves else at for k in range(1, rounds + 1)]
        plan = Plan(
            world=base,
            drifts=tuple(steps),
            lists=lists,
            first_lists=first_lists,
            judged=judged,
            temperature=temperature,
            seed=seed,
            settings=tuple(settings or ()),
            refresh_arguments=tuple(refresh or ()),
        )
        findings = run(Loop(plan, out), plan, traffic, world, fresh and moves)
    except (ContractError, CommandError, ValueError, OSError) as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(BAD_INPUT) from error
    show(findings)
    console.print(f"{out / 'findings.json'}, {out / 'rounds.png'}; commands: {out}/commands.log")


def run(loop: Loop, plan: Plan, traffic: Traffic, world: str, fresh: bool) -> Findings:
    """All rounds; the files are written after each, so that a run that is cut short shows."""
    with console.status("training the first champion"):
        loop.begin()
    done: list[Round] = []

    def findings() -> Findings:
        return Findings(
            traffic=traffic.value,
            world=world,
            lists=plan.lists,
            temperature=plan.temperature,
            rounds=tuple(done),
        )

    for number in track(range(1, len(plan.drifts) + 1), "rounds", console=console, transient=True):
        done.append(loop.round(number))
        console.print(line(done[-1]), highlight=False)
        write(findings(), loop.out)
    result = findings()
    if traffic is Traffic.drifting:
        with console.status("what was lost and won back"):
            result = msgspec.structs.replace(result, recovery=loop.recovered(fresh))
        write(result, loop.out)
    return result


def write(findings: Findings, out: Path) -> None:
    write_json(out / "findings.json", findings)
    plot_rounds(findings, out / "rounds.png")


def start_fresh(out: Path) -> None:
    """An empty folder for the run; ValueError where there is something else in it."""
    if out.exists() and any(out.iterdir()):
        if not (out / "findings.json").exists():
            raise ValueError(f"{out} is not empty, and no earlier run of this; name a new folder")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def line(one: Round) -> str:
    """A round in a line."""
    what = "published" if one.exit_code == 0 else f"refused ({one.refusal})"
    return (
        f"round {one.number:2d}, drift {one.drift:.2f}: {one.champion} {what}; gain "
        f"{one.refreshed.estimate:+.3f}, frozen {one.frozen.estimate:+.3f}, difference "
        f"{text(one.difference)}; {one.reference_drift:.1f} nats; {one.seconds:.0f} s"
    )


def show(findings: Findings) -> None:
    """What the run found."""
    last = findings.rounds[-1]
    rows = Table.grid(padding=(0, 2))
    rows.add_row("champion - frozen, after the last round", text(last.difference))
    rows.add_row("reference drift", f"{last.reference_drift:.1f} nats a list")
    if findings.recovery:
        found = findings.recovery
        rows.add_row("lost by the frozen champion", text(found.loss))
        rows.add_row("won back", text(found.won_back))
        rows.add_row("share of the loss", percent(found.share))
        if found.fresh_minus_frozen and found.share_of_fresh:
            rows.add_row("fresh policy - frozen", text(found.fresh_minus_frozen))
            rows.add_row("share of that", percent(found.share_of_fresh))
    console.print(rows)
    console.print("True expected clicks a list, simulated and exact; 95 % intervals.")


def text(one: Interval) -> str:
    return f"{one.estimate:+.3f} ({one.low:+.3f} to {one.high:+.3f})"


def percent(one: Interval) -> str:
    return f"{one.estimate:.0%} ({one.low:.0%} to {one.high:.0%})"


if __name__ == "__main__":
    app()

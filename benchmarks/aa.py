"""A/A and A/B tests in the simulated world, with the product's own assignment and statistics.

What is simulated: users of ``training/sources/world.py`` ask for lists over days, busy in the
evening; production's list (and in the arm, for a part of the lists, the best one) is shown, and
each list earns what the world's users do. What is real: every repeat draws its users anew from
those, ``contracts/assignment.py`` deals them, and ``deploy/analysis`` judges every hour. Lists do
not pass through Kafka and the table here; tests/analysis does that with one experiment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.aa_plot import plot
from benchmarks.aa_repeats import Repeats, lost_assignments, run, upper_bound
from benchmarks.aa_world import Population, simulate
from deploy.analysis.power import fixed_power, last_look_power

app = typer.Typer(add_completion=False)
EPILOG = """Examples:

python benchmarks/aa.py

python benchmarks/aa.py --repeats 1000 --mde 0.02 --plot docs/images/aa.png --json aa.json
"""


@app.command(epilog=EPILOG)
def main(
    repeats: Annotated[int, typer.Option(min=20, help="Experiments of each sort.")] = 200,
    users: Annotated[int, typer.Option(min=400, help="Users of the world.")] = 2000,
    lists: Annotated[int, typer.Option(min=2000, help="Lists shown in the experiment.")] = 20_000,
    days: Annotated[int, typer.Option(min=1, help="Days; looked at every hour.")] = 7,
    better_share: Annotated[
        float, typer.Option(min=0, max=1, help="A/B: part of the arm's lists that is the best.")
    ] = 0.1,
    alpha: Annotated[float, typer.Option(min=0.001, max=0.4, help="False alarms allowed.")] = 0.05,
    mde: Annotated[float, typer.Option(min=0.0001, help="Tunes the sequence.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Of the world and its users.")] = 0,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Write a PNG.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
) -> None:
    """Count false alarms and detections; exit 3 where there are more alarms than chance allows."""
    console = Console()
    size: dict[str, Any] = {"users": users, "lists": lists, "days": days, "past_days": days}
    with Progress(console=console) as progress:
        task = progress.add_task("Experiments", total=4 * repeats)
        same = simulate(**size, seed=seed)
        other = simulate(**size, seed=seed, better_share=better_share)
        rest: dict[str, Any] = {
            "alpha": alpha,
            "mde": mde,
            "done": lambda: progress.advance(task),
        }
        found = {
            ("A/A", False): run(same, repeats, **rest),
            ("A/A", True): run(same, repeats, use_past=True, salt="aac", **rest),
            ("A/B", False): run(other, repeats, salt="ab", **rest),
            ("A/B", True): run(other, repeats, use_past=True, salt="abc", **rest),
        }
    losses = lost_assignments(repeats=40, users=1_000_000, share=0.02, seed=seed)
    figures: dict[str, Any] = {
        "settings": {**size, "repeats": repeats, "alpha": alpha, "mde": mde, "seed": seed,
                     "better_share": better_share},
        "bound": upper_bound(repeats, alpha),
        **{f"{sort}{', CUPED' if past else ''}": _figures(result, other if sort == "A/B" else same,
                                                          alpha, mde)
           for (sort, past), result in found.items()},
        "2 % of one arm's assignments lost, 1,000,000 users": losses,
    }  # fmt: skip
    _print(console, figures, repeats, alpha)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if plot_file is not None:
        plot(found["A/A", False], found["A/B", False], other.true_lift, alpha, mde, plot_file)
        console.print(f"Plot: {plot_file}")
    worst = max(
        int(result.alarms_by_sequence()[:, -1].sum())
        for (sort, _), result in found.items()
        if sort == "A/A"
    )
    if worst > figures["bound"]:
        raise typer.Exit(3)


def _figures(result: Repeats, population: Population, alpha: float, mde: float) -> dict[str, Any]:
    truth = population.true_lift
    variance = float(np.nanmean(result.deviation[:, -1] ** 2))
    is_ab = bool(truth[-1])
    at_end = np.abs(result.estimate[:, -1]) > result.half[:, -1]
    return {
        "true lift": float(truth[-1]),
        "shown by the sequence at any look": int(result.alarms_by_sequence()[:, -1].sum()),
        "shown by the sequence at the last look": int(at_end.sum()),
        "computed power of the last look": (
            last_look_power(float(truth[-1]), variance, mde, alpha) if is_ab else None
        ),
        "shown by peeking at p < alpha": int(result.alarms_by_peeking(alpha)[:, -1].sum()),
        "shown by the fixed-horizon test": int((result.p[:, -1] < alpha).sum()),
        "computed power of the fixed-horizon test": (
            fixed_power(float(truth[-1]), variance, alpha) if is_ab else None
        ),
        "sequence left out the truth at any look": int(
            result.alarms_by_sequence(truth)[:, -1].sum()
        ),
        "sample-ratio alarms at any look": int(result.ratio_alarm.sum()),
        "standard error of the lift": float(np.sqrt(variance)),
    }


def _print(console: Console, figures: dict[str, Any], repeats: int, alpha: float) -> None:
    sorts = [name for name in figures if name.startswith("A/")]
    table = Table(title=f"{repeats} simulated experiments of each sort, looked at every hour")
    table.add_column("")
    for name in sorts:
        table.add_column(name, justify="right")
    for row in figures[sorts[0]]:
        cells = [figures[name][row] for name in sorts]
        table.add_row(row, *("" if one is None else f"{one:.4g}" for one in cells))
    console.print(table)
    console.print(
        f"False alarms that chance allows at alpha {alpha:g}: {figures['bound']} of {repeats} "
        "(99.9 %)."
    )
    losses = figures["2 % of one arm's assignments lost, 1,000,000 users"]
    console.print(
        f"2 % of one arm's assignments lost: the sample-ratio test alarms in {losses['alarms']} of "
        f"{losses['repeats']} experiments of {losses['users']:,} users; without loss in "
        f"{losses['alarms without loss']}."
    )


if __name__ == "__main__":
    app()

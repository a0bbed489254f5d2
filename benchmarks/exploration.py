"""What exploring costs and what it buys, in a simulated world: clicks lost, certainty won.

The champion orders candidates by the previous stage's score, drawing its lists from Plackett-Luce
over score / temperature. The candidate has moved the scores a step towards the truth and serves at
the same temperature. From so many slates of the champion the candidate's gain is estimated; the
world knows the true one. Every figure is simulated.

Axes: S requests, N list positions, M candidates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import msgspec
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from contracts.reading import Strict, write_json
from training.command import exit_codes
from training.evaluation.off_policy.comparing import Weighing, compare_policies
from training.evaluation.off_policy.estimate import OffPolicyEstimate, OffPolicySettings
from training.evaluation.off_policy.estimators import Prediction
from training.evaluation.off_policy.logged import Logged
from training.evaluation.off_policy.weights import cascade_weights
from training.sources.world import PRESETS, Requests, World

EPILOG = """Examples:

python benchmarks/exploration.py

python benchmarks/exploration.py --world strong --lists 5000 --step 0.3 --temperature 0.5
"""

TEMPERATURES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Row(Strict, kw_only=True, frozen=True):
    """A temperature: true clicks a list, and what the log says of the candidate's gain."""

    temperature: float
    true_clicks: float
    lost: float
    true_gain: float
    estimates: tuple[OffPolicyEstimate, ...]


@app.command(epilog=EPILOG)
def main(
    world: Annotated[str, typer.Option(help=f"{' or '.join(PRESETS)}.")] = "noisy",
    lists: Annotated[int, typer.Option(min=100, help="Explored slates in the log.")] = 20_000,
    step: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Part of the way from the scores to the truth.")
    ] = 0.2,
    size: Annotated[int, typer.Option(min=1, help="List size n.")] = 10,
    temperature: Annotated[
        Optional[list[float]], typer.Option(help="Of both policies; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws requests, lists and clicks.")] = 0,
    out: Annotated[Optional[Path], typer.Option(help="JSON file of all rows.")] = None,
) -> None:
    """Print, by temperature, true clicks lost, effective sample size and the interval's width.

    Exit code 0: done; 2: bad input.
    """
    with exit_codes():
        if world not in PRESETS:
            raise ValueError(f"--world {world}; allowed: {', '.join(PRESETS)}")
        heats = tuple(temperature or TEMPERATURES)
        if not all(0 < heat < np.inf for heat in heats):
            raise ValueError(f"--temperature {heats}; allowed: above 0")
        made = World(msgspec.structs.replace(PRESETS[world], list_size=size))
        rows = [
            measure(made, heat, step, lists, seed)
            for heat in track(heats, "exploring", transient=True, console=console)
        ]
        if out is not None:
            write_json(out, [msgspec.to_builtins(row) for row in rows])
    console.print(_table(rows, f"{world}, {lists} slates of {size}, step {step:g} (simulated)"))


def measure(world: World, heat: float, step: float, lists: int, seed: int) -> Row:
    """One temperature; the same requests for each."""
    rng = np.random.default_rng([seed, 0])
    requests = world.draw(lists, rng)
    truth = world.logits(requests.users, requests.candidates)
    champion = requests.scores / heat
    candidate = (requests.scores + step * (truth - requests.scores)) / heat
    size = world.settings.list_size
    noise = rng.gumbel(size=champion.shape)
    shown, other = (np.argsort(-(keys + noise), axis=1)[:, :size] for keys in (champion, candidate))
    greedy = np.tile(np.arange(size), (lists, 1))
    clicks = {
        name: _clicks(world, requests, order).sum(axis=1).mean()
        for name, order in (("greedy", greedy), ("champion", shown), ("candidate", other))
    }
    items = np.take_along_axis(requests.candidates, shown, axis=1)
    drawn = world.act(requests.users, items, rng)["click"]
    log_p = next_items(champion, shown)
    logged = Logged(chosen(log_p, shown), drawn, np.ones(shown.shape, bool), requests.users)
    # The prediction that a team could have: a click by score and position, blind to fatigue.
    guess = world.examination(size)[:, None] / (1 + np.exp(-requests.scores))[:, None, :]
    weighings = []
    for name, keys in (("champion", champion), ("candidate", candidate)):
        ahead = next_items(keys, shown)
        weights = cascade_weights(chosen(ahead, shown), logged.log_prob, logged.shown)
        q = Prediction(chosen(guess, shown), (np.exp(ahead) * guess).sum(axis=2), True)
        weighings.append(Weighing(name, weights, q))
    first, second = weighings
    found = compare_policies(logged, "cascade", first, second, OffPolicySettings())
    return Row(
        temperature=heat,
        true_clicks=float(clicks["champion"]),
        lost=float(1 - clicks["champion"] / clicks["greedy"]),
        true_gain=float(clicks["candidate"] - clicks["champion"]),
        estimates=tuple(found),
    )


def next_items(keys: Floats, lists: Ints) -> Floats:
    """Plackett-Luce log-probability of each candidate after each prefix of a list [S, N, M]."""
    keys = keys.copy()
    out = np.empty((*lists.shape, keys.shape[1]))
    for place in range(lists.shape[1]):
        out[:, place] = keys - np.logaddexp.reduce(keys, axis=1, keepdims=True)
        np.put_along_axis(keys, lists[:, place : place + 1], -np.inf, axis=1)
    return out


def chosen(values_SNM: Floats, lists: Ints) -> Floats:
    """What the lists hold [S, N]."""
    return np.asarray(np.take_along_axis(values_SNM, lists[:, :, None], axis=2)[:, :, 0])


def _clicks(world: World, requests: Requests, lists: Ints) -> Floats:
    items = np.take_along_axis(requests.candidates, lists, axis=1)
    return world.expected("click", requests.users, items)


def _table(rows: list[Row], title: str) -> Table:
    table = Table(title=title)
    for name in ("temperature", "true clicks", "lost", "true gain"):
        table.add_column(name, justify="right")
    for name in ("SNIPS gain (95 %)", "DR gain (95 %)", "least ESS", "cut", "usable"):
        table.add_column(name, justify="right")
    for row in rows:
        gains = [one for one in row.estimates if one.policy == "candidate - champion"]
        table.add_row(
            f"{row.temperature:g}",
            f"{row.true_clicks:.3f}",
            f"{row.lost:.1%}",
            f"{row.true_gain:+.4f}",
            *(_interval(one) for one in gains),
            f"{gains[0].effective_sample_size:.0f}",
            f"{gains[0].clipped_share:.2%}",
            "yes" if gains[0].usable else "no",
        )
    return table


def _interval(one: OffPolicyEstimate) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "none"
    return f"{one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


if __name__ == "__main__":
    app()

"""Evaluate policies on held-out slates, against the given order and, in a world, the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import numpy as np
import numpy.typing as npt
import typer

from contracts.datasets import SPLITS, read_dataset
from contracts.reading import ContractError
from training.alarms import auc_without_ndcg
from training.checkpoint import load_checkpoint
from training.command import console, exit_codes
from training.data.arrays import load_slates
from training.decoding.run import Mode, decode_slates
from training.distributed import processes
from training.evaluation.against_baseline import Comparison, compare
from training.evaluation.metrics import given_order
from training.evaluation.report import comparison_table, write_comparison
from training.evaluation.truth import true_feedback, world_of, world_rows

EPILOG = """Examples:

python training/evaluate.py --data slates/ --policy post=runs/demo/post_train/best.pt

python training/evaluate.py --data slates/ --policy pre=runs/demo/pretrain/best.pt
  --policy post=runs/demo/post_train/best.pt --out report.json
"""

GIVEN, EXPOSED, ORACLE = "given order", "exposed order", "greedy oracle"
TRUTH = "true {kind}*"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Orders = npt.NDArray[np.int64]


@app.command(epilog=EPILOG)
def main(
    data: Annotated[Path, typer.Option(help="Folder of training/prepare.py.")],
    policy: Annotated[list[str], typer.Option(help="name=checkpoint; may be given again.")],
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    mode: Annotated[str, typer.Option(help="omtp, one_at_a_time or verified.")] = "omtp",
    resamples: Annotated[int, typer.Option(min=10, help="Bootstrap resamples of users.")] = 1000,
    out: Annotated[Optional[Path], typer.Option(help="JSON file of all results.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Print every metric, not only the headline.")
    ] = False,
) -> None:
    """Print metrics of each policy with paired bootstrap intervals against the given order.

    docs/evaluation.md defines the metrics. Lists are decoded from all candidates. Exit code 0:
    done; 2: bad input.
    """
    with exit_codes():
        if split not in SPLITS or mode not in ("omtp", "one_at_a_time", "verified"):
            raise ValueError(
                f"--split {split} --mode {mode}; allowed: {', '.join(SPLITS)}; "
                "omtp, one_at_a_time, verified"
            )
        files = _files(policy)
        comparison = evaluate(data, files, split, mode, resamples)  # type: ignore[arg-type]
        if out is not None:
            write_comparison(out, comparison)
    shown = comparison if everything else headline(comparison)
    console.print(comparison_table(shown, f"{data.name} ({split})"))
    if any(name.startswith("true ") for name in _names(comparison)):
        console.print("* exact expectation in a simulated world: no log could tell it.")
    for name in files:
        alarm = auc_without_ndcg(_values(comparison, GIVEN), _values(comparison, name))
        if alarm:
            console.print(f"[yellow]{name}: {alarm}[/yellow]")


def evaluate(
    data: Path,
    policies: Mapping[str, Path],
    split: str = "test",
    mode: Mode = "omtp",
    resamples: int = 1000,
) -> Comparison:
    """Compare checkpoints with the given order on a split of a prepared dataset."""
    dataset, spec = read_dataset(data)
    # A continuous utility has the scale of the training slates.
    like = load_slates(data / "train", spec) if spec.utility_kind.type == "continuous" else None
    slates = load_slates(data / split, spec, like=like)
    n = min(spec.list_size, int(slates.count.max()))
    orders: dict[str, Orders] = {GIVEN: given_order(slates.count, n), EXPOSED: slates.exposed}
    with processes() as here:
        for name, file in policies.items():
            checkpoint = load_checkpoint(file)
            if checkpoint.spec.hash() != spec.hash():
                raise ContractError(f"{file}: was trained under another feature spec than {data}")
            model = checkpoint.model().to(here.device)
            orders[name] = decode_slates(model, slates, n, here.device, mode)
    extra = None
    if dataset.source == "simulator":
        world = world_of(dataset)
        users, items = world_rows(world, slates)
        orders[ORACLE] = world.greedy_oracle(users, items, n)
        extra = {
            TRUTH.format(kind=kind.kind): {
                name: true_feedback(world, kind.kind, users, items, order)
                for name, order in orders.items()
            }
            for kind in spec.feedback
        }
    return compare(
        orders,
        slates.exposed,
        slates.utility,
        slates.user,
        baseline=GIVEN,
        ks=(5, 10),
        extra=extra,
        resamples=resamples,
    )


def headline(comparison: Comparison) -> Comparison:
    """The results that people look at first; the rest stays in the JSON file and under --all."""
    longest = max(
        int(name.split("@")[1]) for name in _names(comparison) if name.startswith("ndcg@")
    )
    first = {f"ndcg@{longest}", f"ndcg_shown@{longest}", f"map@{longest}", "auc", "gauc"}
    results = tuple(
        r for r in comparison.results if r.metric in first or r.metric.startswith("true ")
    )
    return msgspec.structs.replace(comparison, results=results)


def _names(comparison: Comparison) -> set[str]:
    return {result.metric for result in comparison.results}


def _files(policies: Sequence[str]) -> dict[str, Path]:
    """Checkpoints by the names under which they are reported."""
    files: dict[str, Path] = {}
    for text in policies:
        name, equals, file = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--policy {text}: write it as name=checkpoint")
        if name in files or name in (GIVEN, EXPOSED, ORACLE):
            raise ValueError(f"--policy {text}: {name!r} is taken; give each policy its own name")
        files[name] = Path(file)
    return files


def _values(comparison: Comparison, method: str) -> dict[str, float]:
    return {r.metric: r.value.estimate for r in comparison.results if r.method == method}


if __name__ == "__main__":
    app()

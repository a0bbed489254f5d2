"""The whole path once: slates, training, a published release, a real Triton, lists over gRPC.

Runs the commands that a team would run, one after the other, and prints each before it does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from contracts.datasets import Dataset, read_dataset
from contracts.reading import read_json
from deploy.demo_requests import Served, rerank_over_grpc
from deploy.local_triton import LocalTriton
from deploy.served_repository import newest_release
from deploy.triton_process import Ports
from training.checkpoint import load_checkpoint
from training.evaluate import GIVEN
from training.evaluation.comparison import Comparison

EPILOG = """Examples:

make demo

make demo DATA=path/to/KuaiRand-Pure/data

python deploy/demo.py --world strong --lists 20000
"""

REFUSED = 3
SMALL = (
    "model.width=16",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "pretrain.optim.batch_size=512",
    "post_train.optim.batch_size=512",
    "post_train.optim.epochs=1",
    "post_train.pairs.draws=1",
    "post_train.pairs.evaluator.optim.epochs=2",
)
ROOT = Path(__file__).resolve().parents[1]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.command(epilog=EPILOG)
def main(
    data: Annotated[
        Optional[Path], typer.Option(help="KuaiRand's CSV folder; without it, a simulated world.")
    ] = None,
    world: Annotated[str, typer.Option(help="Simulated world: noisy or strong.")] = "noisy",
    lists: Annotated[int, typer.Option(min=1000, help="Simulated requests.")] = 16_000,
    requests: Annotated[int, typer.Option(min=1, help="Requests over gRPC.")] = 400,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder of all that it makes.", show_default="demo/<source>"),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="A tiny model and few epochs: a rehearsal.")
    ] = False,
) -> None:
    """Train, evaluate, publish, serve and rerank; then shut down. Exit code 0: all of it worked."""
    started = time.monotonic()
    out = out or Path("demo") / ("kuairand" if data else "simulator")
    slates = out / "slates"
    shutil.rmtree(out / "runs", ignore_errors=True)  # of an earlier demo, perhaps on other data
    if data is None:
        arguments = ["--source", "simulator", "--world", world, "--lists", str(lists)]
    else:
        arguments = ["--source", "kuairand", "--input", str(data)]
    run("training/prepare.py", *arguments, "--out", slates, "--force")
    policies = train(slates, out, all_stages=data is not None, small=small)
    evaluation = out / "evaluation.json"
    named = [part for name, path in policies.items() for part in ("--policy", f"{name}={path}")]
    run("training/evaluate.py", "--data", slates, *named, "--out", evaluation)
    best, engines, releases = chosen(policies), out / "engines", out / "releases"
    run("training/export.py", "--checkpoint", best, "--data", slates, "--out", engines)
    run("training/publish.py", "--engines", engines, "--out", releases)
    release = newest_release(releases)
    dataset, _ = read_dataset(slates)
    console.rule("Triton")
    with LocalTriton(out / "stack", ports=Ports(http=0, grpc=0, metrics=0)) as triton:
        with console.status("starting Triton and loading the release"):
            triton.load(release)
        url = f"127.0.0.1:{triton.state().ports.grpc}"
        console.print(f"{release.name} is ready at {url}")
        served = rerank_over_grpc(url, release.name, slates, requests)
    console.print("Triton is down again")
    console.print(summary(dataset, evaluation, served, release, out, time.monotonic() - started))
    if served.fallbacks:
        raise typer.Exit(1)


def train(slates: Path, out: Path, all_stages: bool, small: bool) -> dict[str, Path]:
    """Pre-training and Rerank-DPO; with ``all_stages`` also Rerank-DPO without pre-training."""
    both = out / "runs" / "both"
    data = ("--data", slates, *(word for text in SMALL * small for word in ("--set", text)))
    policies = {"pre-training": both / "pretrain" / "best.pt"}
    run("training/pretrain.py", *data, "--out", both)
    if all_stages:
        post = out / "runs" / "post-only"
        untrained = ("--set", "pretrain.optim.epochs=0")
        run("training/pretrain.py", *data, "--out", post, *untrained)
        start = post / "pretrain" / "best.pt"
        run("training/post_train.py", *data, "--checkpoint", start, "--out", post, may_refuse=True)
        policies["post-training"] = post / "post_train" / "best.pt"
    start = policies["pre-training"]
    run("training/post_train.py", *data, "--checkpoint", start, "--out", both, may_refuse=True)
    return {**policies, "both": both / "post_train" / "best.pt"}


def chosen(policies: dict[str, Path]) -> Path:
    """The policy to publish: the best by the log's NDCG on held-out lists, where that chose them.

    Where it did not (candidates that were not shown), the last: Rerank-DPO, whose epochs are
    judged against the policy that it started from.
    """
    scores = {path: load_checkpoint(path).scores for path in policies.values()}
    if all("ndcg" in score for score in scores.values()):
        return max(scores, key=lambda path: scores[path]["ndcg"])
    return list(scores)[-1]


def run(script: str, *arguments: object, may_refuse: bool = False) -> None:
    """Print and run a command of the project; a gate's refusal may be part of the story."""
    words = [script, *map(str, arguments)]
    console.rule()
    console.print(f"[bold]$ python {' '.join(words)}[/bold]", highlight=False, soft_wrap=True)
    command = [sys.executable, *words]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code == 0 or (may_refuse and code == REFUSED):
        return
    console.print(f"[red]{script} ended with exit code {code}; the demo stops here[/red]")
    raise typer.Exit(code)


def summary(
    dataset: Dataset, evaluation: Path, served: Served, release: Path, out: Path, seconds: float
) -> Panel:
    """What happened, a line each."""
    rows = Table.grid(padding=(0, 2))
    if served.true_gain is not None:
        mean, (gain, half) = served.true_given, served.true_gain
        rows.add_row(
            "served lists",
            f"[bold]{gain:+.3f} +- {half:.3f}[/bold] true clicks* "
            f"({gain / mean:+.1%} of {mean:.3f})",
        )
    results = read_json(evaluation, Comparison)
    metrics = ("true click*",) if dataset.source == "simulator" else ("ndcg", "auc")
    for metric in metrics:
        rows.add_row(f"held-out {metric}", f"{results.get(metric, GIVEN).value.estimate:.4f} given")
        for one in results.results:
            if one.metric == metric and one.difference is not None:
                d = one.difference
                text = f"{d.estimate:+.4f} ({d.low:+.4f} to {d.high:+.4f}) {one.method}"
                rows.add_row("", text)
    rows.add_row("over gRPC", f"{served.requests} requests, {served.fallbacks} fallbacks")
    rows.add_row("latency", f"p50 {served.p50_ms:.1f} ms, p99 {served.p99_ms:.1f} ms at the client")
    rows.add_row("release", str(release))
    rows.add_row("the rest", f"slates, runs, learning curves, Triton's log: {out}")
    rows.add_row("again", f"python deploy/local.py up --release {release}")
    rows.add_row("took", f"{seconds / 60:.1f} minutes")
    note = "differences to the given order, 95 % intervals"
    if dataset.source == "simulator":
        note = f"* simulated, exact; {note}"
    return Panel(rows, title="GReF", subtitle=note, expand=False)


if __name__ == "__main__":
    app()

"""The whole path once: slates, training, a release, a real Triton, lists over gRPC; and on a
simulated world live traffic whose tastes move, its events through a broker into a table, a refresh
that wins back what was lost, the experiment that shows it and promotes it, a broken release that is
rolled back by itself, and a refresh that is refused because its feedback is poisoned.

Runs the commands that a team would run, one after the other, and prints each before it does.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from contracts.datasets import read_dataset
from deploy.demonstration.commands import console, run
from deploy.demonstration.live import Live, LiveDemo
from deploy.demonstration.plot import plot_live
from deploy.demonstration.requests import rerank_over_grpc
from deploy.demonstration.summary import Story, summary
from deploy.demonstration.training import first_release
from deploy.local_triton import LocalTriton
from deploy.triton_process import Ports

EPILOG = """Examples:

make demo

make demo DATA=path/to/KuaiRand-Pure/data

python deploy/demo.py --world noisy --lists 16000 --no-live
"""

#: What live traffic leaves; a demo begins without what an earlier one left.
LEFT_BY_LIVE = (
    *("broker", "experiments", "feedback", "releases", "served", "spool"),
    *("spoiled-engines", "traffic"),
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    data: Annotated[
        Optional[Path], typer.Option(help="KuaiRand's CSV folder; without it, a simulated world.")
    ] = None,
    world: Annotated[str, typer.Option(help="Simulated: fickle, noisy or strong.")] = "fickle",
    lists: Annotated[int, typer.Option(min=1000, help="Simulated requests.")] = 8000,
    requests: Annotated[int, typer.Option(min=1, help="Held-out requests over gRPC.")] = 400,
    live: Annotated[
        bool, typer.Option(help="Live traffic, refresh and poison (simulated worlds only).")
    ] = True,
    live_requests: Annotated[
        int, typer.Option(min=1000, help="Requests of the longest stretch of live traffic.")
    ] = 4500,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder of all that it makes.", show_default="demo/<source>"),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="A tiny model and few epochs: a rehearsal.")
    ] = False,
) -> None:
    """Train, evaluate, publish, serve, rerank, collect, refresh; then shut down.

    Exit code 0: all of it worked.
    """
    started = time.monotonic()
    live = live and data is None
    out = (out or Path("demo") / ("kuairand" if data else "simulator")).absolute()
    for name in LEFT_BY_LIVE * live:
        shutil.rmtree(out / name, ignore_errors=True)
    slates = out / "slates"
    if data is None:
        arguments = ["--source", "simulator", "--world", world, "--lists", str(lists)]
    else:
        arguments = ["--source", "kuairand", "--input", str(data)]
    run("training/prepare.py", *arguments, "--out", slates, "--force")
    release = first_release(slates, out, all_stages=data is not None, small=small)
    dataset, _ = read_dataset(slates)
    happened: Live | None = None
    console.rule("Triton")
    with LocalTriton(out / "stack", ports=Ports(http=0, grpc=0, metrics=0)) as triton:
        with console.status("starting Triton and loading the release"):
            triton.load(release)
        url = f"127.0.0.1:{triton.state().ports.grpc}"
        console.print(f"{release.name} is ready at {url}")
        served = rerank_over_grpc(url, release.name, slates, requests)
        if live:
            happened = LiveDemo(triton, dataset, slates, out, live_requests).run()
    console.print("Triton is down again")
    plot = out / "live.png"
    if happened is not None:
        plot_live(happened, plot)
    story = Story(
        dataset=dataset,
        evaluation=out / "evaluation.json",
        served=served,
        release=release,
        out=out,
        seconds=time.monotonic() - started,
        live=happened,
        plot=plot if happened else None,
    )
    console.print(summary(story))
    if served.fallbacks or (happened is not None and not as_told(happened)):
        raise typer.Exit(1)


def as_told(live: Live) -> bool:
    """Whether the live half went as the demo means to show it."""
    rollouts, poisoned = live.rollouts, live.poisoned
    if rollouts is None or poisoned is None or live.fallbacks:
        return False
    return rollouts.promoted and rollouts.rolled_back and poisoned["outcome"] == "refused"


if __name__ == "__main__":
    app()

"""Serving under load: how many lists a second at which latency, with and without dynamic batching.

One release's engines are served under several settings side by side by one real Triton, and the
settings take turns: first callers who wait for each answer (closed loop), then arrivals at random
times and rising rates (open loop), until the latency breaks. Load comes from processes of its own
over the loopback address; what they take of the processors is in the report.

Exit code 3 where dynamic batching does not give twice the throughput of none at a p99 that is equal
or better, both by closed-loop callers.
"""

from __future__ import annotations

import signal
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import torch
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.load_report import Arm, LoadReport, draw, tables
from benchmarks.load_stage import MOST_PROCESSES, Generators, StageResult, write_messages
from benchmarks.random_release import publish_random, random_request
from contracts.encoding import FeatureEncoder
from contracts.features import FeatureSpec
from contracts.reading import read_yaml, write_json
from contracts.rules import without_rules
from deploy.local_triton import LocalTriton
from deploy.triton_process import Ports, descendants
from handlers.rerank_wire import infer_request
from handlers.served_release import model_of
from training.release.publishing import publish
from training.release.serving_settings import ServingSettings

EPILOG = """Examples:

python benchmarks/load.py --out load        # all settings; load/load.json and load/load.png

python benchmarks/load.py --arm batching --arm none --seconds 2 --rounds 5

python benchmarks/load.py --arm batching --rate 100 --rate 200 --rate 300 --p99-ms 20

Triton's own tool, perf_analyzer, is in the container
nvcr.io/nvidia/tritonserver:<yy.mm>-py3-sdk; the commands are in docs/serving.md.
"""

LIST_SIZE = 10
#: Settings by the name of the arm; x2: two instances of each engine.
ARMS = {
    "batching": ServingSettings(),
    "none": ServingSettings(batching=False),
    "at-most-8": ServingSettings(preferred_batch_sizes=(8,)),
    "at-most-64": ServingSettings(preferred_batch_sizes=()),
    "delay-500us": ServingSettings(max_queue_delay_us=500),
    "queue-256": ServingSettings(max_queue_size=256),
    "batching-x2": ServingSettings(instances=2),
    "none-x2": ServingSettings(batching=False, instances=2),
}
#: Offered rates of the open loop, in closed-loop throughputs of the first arm without batching.
RISING = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
_DISTINCT = 64
_WARM_S = 0.5
#: Rates at which an arm may miss four times the limit, before it is offered no higher one.
_CHANCES = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.command(epilog=EPILOG)
def main(
    candidates: Annotated[
        Optional[list[int]], typer.Option(help="m of the requests; may be repeated, for a mix.")
    ] = None,
    arm: Annotated[
        Optional[list[str]], typer.Option(help=f"Settings, of: {', '.join(ARMS)}. May be repeated.")
    ] = None,
    rate: Annotated[
        Optional[list[float]],
        typer.Option(min=1, help="Arrivals per second; may be repeated. Default: rising."),
    ] = None,
    callers: Annotated[int, typer.Option(min=1, max=1024, help="Of the closed loop.")] = 32,
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="Of each stage.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Of the closed loop.")] = 3,
    p99_ms: Annotated[float, typer.Option(min=1, help="The limit of the open loop.")] = 30.0,
    processes: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="Generator processes.")
    ] = 2,
    out: Annotated[Optional[Path], typer.Option(help="Folder for load.json and load.png.")] = None,
) -> None:
    """Measure serving of the paper's 4 + 4 layers, D = 64, n = 10, on the CPU, under load."""
    torch.set_num_threads(1)
    # Told to end, it still stops the Triton that it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unknown = sorted(set(arm or ()) - set(ARMS))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}; allowed: {', '.join(ARMS)}")
    settings = {name: ARMS[name] for name in arm or ARMS}
    with tempfile.TemporaryDirectory() as folder, Progress(console=console, transient=True) as bar:
        bench = Bench(Path(folder), settings, tuple(candidates or (30,)), processes, bar)
        report = bench.measure(tuple(rate or ()), callers, seconds, rounds, p99_ms)
    for table in tables(report):
        console.print(table)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "load.json", msgspec.to_builtins(report))
        draw(report, out / "load.png")
        console.print(f"{out / 'load.json'}, {out / 'load.png'}")
    if report.gain is not None:
        console.print(report.words())
        if not report.holds:
            raise typer.Exit(3)


class Bench:
    """Releases of equal engines and different settings, and the messages that ask them."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, ServingSettings],
        candidates: tuple[int, ...],
        processes: int,
        bar: Progress,
    ) -> None:
        self._folder, self._settings, self._candidates = folder, settings, candidates
        self._processes, self._bar = processes, bar

    def measure(
        self,
        rates: tuple[float, ...],
        callers: int,
        seconds: float,
        rounds: int,
        p99_ms: float,
    ) -> LoadReport:
        """Serve all settings on one Triton and let them take turns."""
        task = self._bar.add_task("publishing", total=len(self._settings) * (rounds + 8))
        first = publish_random(self._folder, LIST_SIZE, self._candidates)
        releases = {
            name: publish(self._folder / "engines", first.parent, one)
            for name, one in self._settings.items()
        }
        spec = read_yaml(first / "features.yaml", FeatureSpec)
        messages = {
            name: write_messages(
                self._folder / f"{release.name}.messages", self._messages(spec, release.name)
            )
            for name, release in releases.items()
        }
        with (
            LocalTriton(self._folder / "stack", ports=Ports()) as stack,
            Generators(self._processes) as generators,
        ):
            for release in releases.values():
                self._bar.update(task, description=f"loading {release.name}")
                stack.load(release)
            state = stack.state()
            servers = [state.pid, *descendants(state.pid)]

            def stage(name: str, **load: float) -> StageResult:
                self._bar.update(task, description=f"{name} {load}")
                return generators.run(state.grpc_url, messages[name], servers, **load)  # type: ignore[arg-type]

            for name in releases:
                stage(name, callers=callers, seconds=_WARM_S)
            closed: dict[str, list[StageResult]] = {name: [] for name in releases}
            for _ in range(rounds):
                for name, results in closed.items():
                    results.append(stage(name, callers=callers, seconds=seconds))
                    self._bar.advance(task)
            base = _throughput(closed.get("none") or next(iter(closed.values())))
            opened: dict[str, list[StageResult]] = {name: [] for name in releases}
            standing = dict.fromkeys(releases, _CHANCES)
            for number, rate in enumerate(rates or [base * one for one in RISING]):
                for name in list(standing):
                    result = stage(name, rate=rate, seconds=seconds, seed=number)
                    opened[name].append(result)
                    self._bar.advance(task)
                    if result.p99 is None or result.p99 > 4 * p99_ms:
                        standing[name] -= 1
                        if not standing[name]:
                            del standing[name]  # higher rates would say no more
        return LoadReport(
            candidates=self._candidates,
            callers=callers,
            seconds=seconds,
            p99_limit_ms=p99_ms,
            arms=tuple(
                Arm(name=name, closed=tuple(closed[name]), open=tuple(opened[name]))
                for name in releases
            ),
        )

    def _messages(self, spec: FeatureSpec, release: str) -> list[bytes]:
        """Distinct requests in turn of the numbers of candidates."""
        encoder = FeatureEncoder(spec)
        made = []
        for number in range(_DISTINCT):
            count = self._candidates[number % len(self._candidates)]
            batch = encoder.encode([random_request(count, LIST_SIZE)])
            rules = without_rules(1, LIST_SIZE, batch.item_cat.shape[1])
            message = infer_request(model_of(release), batch, rules, 0.0, [0])
            made.append(message.SerializeToString())
        return made


def _throughput(results: list[StageResult]) -> float:
    return statistics.median(result.throughput for result in results)


if __name__ == "__main__":
    app()

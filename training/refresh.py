"""Refresh the champion from the feedback table: a better release is published, or it is refused.

The steps are in training/refreshing/pipeline.py; what each gate is for, in docs/refresh.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer
from rich.table import Table

from contracts.releases import Gate
from training.command import BAD_INPUT, REFUSED, assignments, console, errors, exit_codes
from training.distributed import processes
from training.refreshing.findings import Summary
from training.refreshing.pipeline import dry_run, refresh
from training.refreshing.request import Request
from training.refreshing.run_metrics import RunMetrics
from training.refreshing.settings import read_refresh_settings
from training.release.release_names import PublishError
from training.settings import override

EPILOG = """Examples:

python training/refresh.py --feedback feedback/ --releases releases/ --repository served/ --dry-run

python training/refresh.py --feedback s3://bucket/feedback --storage-option AWS_REGION=eu-west-1
  --releases releases/ --repository served/ --promote

python training/refresh.py --feedback feedback/ --releases releases/ --repository served/
  --until-version 120 --set data.min_slates=1000
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    feedback: Annotated[str, typer.Option(help="The feedback table: a folder, or s3://...")],
    releases: Annotated[Path, typer.Option(help="Folder of releases; holds the champion.")],
    repository: Annotated[Path, typer.Option(help="Folder that Triton serves from.")],
    settings: Annotated[
        Optional[Path], typer.Option(help="YAML; by default training/refreshing/refresh.yaml.")
    ] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="A setting, e.g. gates.max_drift=20.")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Check the input and its gates; change nothing.")
    ] = False,
    until: Annotated[
        Optional[int], typer.Option("--until-version", help="Read no newer version.")
    ] = None,
    since: Annotated[
        Optional[int],
        typer.Option("--since-version", help="Read what came after it, not after the champion's."),
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Make the new release the champion.")
    ] = False,
    work: Annotated[
        Optional[Path], typer.Option(help="Work folder.", show_default="RELEASES/.refresh")
    ] = None,
    storage_option: Annotated[
        Optional[list[str]], typer.Option(help="KEY=VALUE of the table's storage; repeatable.")
    ] = None,
    metrics_file: Annotated[
        Optional[Path],
        typer.Option(help="DIR/NAME.prom for the textfile collector (docs/monitoring.md)."),
    ] = None,
) -> None:
    """Train from the champion on new slates, compare, and publish or refuse.

    The last line of stdout is a summary in JSON. Exit code 0: published, or nothing to do; 3:
    refused by a gate, the champion stays; 2: bad input, or something cannot be written. A refresh
    that was killed goes on where it was when it is run again.
    """
    with (
        exit_codes(),
        processes() as here,
        RunMetrics(metrics_file if here.is_first else None, releases) as run,
    ):
        typed = override(read_refresh_settings(settings), assignments(set_ or ()))
        request = Request(
            feedback=feedback,
            releases=releases,
            repository=repository,
            work=work,
            since=since,
            until=until,
            promote=promote,
            storage_options=_options(storage_option or []),
        )
        try:
            with errors.status("refresh") as status:

                def on_step(step: str) -> None:
                    errors.print(f"[dim]{step}[/dim]", highlight=False)
                    status.update(step)

                run.summary = summary = (
                    dry_run(request, typed, on_step)
                    if dry
                    else refresh(request, typed, here, on_step)
                )
        except PublishError as error:
            errors.print(f"error: {error}", style="red", markup=False, highlight=False)
            raise typer.Exit(BAD_INPUT) from error
    show(summary)
    if summary.outcome == "refused":
        raise typer.Exit(REFUSED)


def _options(pairs: list[str]) -> dict[str, str]:
    options = {}
    for text in pairs:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--storage-option {text}: write it as KEY=VALUE")
        options[name] = value
    return options


def show(summary: Summary) -> None:
    """The gates for people, then the summary as the last line of stdout."""
    if summary.gates:
        console.print(_gate_table(summary.gates))
    words = {
        "published": f"published {summary.release}, from {summary.champion}",
        "refused": f"refused; {summary.champion} stays the champion",
        "unchanged": f"nothing to do ({summary.reason}); {summary.release} stands",
        "dry-run": "dry run: " + (summary.reason or "would train, judge, and publish or refuse"),
    }
    console.print(words[summary.outcome], highlight=False, markup=False, soft_wrap=True)
    if summary.report:
        console.print(f"report: {summary.report}", highlight=False, markup=False, soft_wrap=True)
    typer.echo(msgspec.json.encode(summary).decode())


def _gate_table(gates: tuple[Gate, ...]) -> Table:
    table = Table("", "gate", "value", "limit", "detail", title="gates", title_justify="left")
    for gate in gates:
        state = "[green]pass[/green]" if gate.passed else "[red]FAIL[/red]"
        table.add_row(state, gate.name, f"{gate.value:.4g}", f"{gate.limit:.4g}", gate.detail)
    return table


if __name__ == "__main__":
    app()

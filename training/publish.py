"""Publish exported engines as the next release of the model repository.

Checks the engines and their gates, builds the release aside and gives it its name (r0001, r0002,
...) in one rename. An existing release is never touched. The first release of a folder becomes the
champion, from which refreshes start; a later one only with --champion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contracts.reading import ContractError, convert, read_yaml
from contracts.releases import settings_of
from training.command import BAD_INPUT, REFUSED, console, errors
from training.release.publishing import GateRefusedError, publish
from training.release.release_names import PublishError
from training.release.serving_settings import ServingSettings
from training.release.store import ReleaseStore

EXAMPLES = """
Examples:

  python training/publish.py --engines runs/kuairand/engines --out releases/

  python training/publish.py --engines runs/demo/engines --serving serving.yaml

  python training/publish.py --engines runs/demo/engines --champion

  python training/publish.py --engines plans/ --profile tensorrt
"""


def main(
    engines: Annotated[Path, typer.Option(help="Folder that export.py wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of releases.")] = Path("releases"),
    serving: Annotated[
        Path | None, typer.Option(help="YAML with batch size, instances, threads, warm-up.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="cpu, gpu, tensorrt or aoti.", show_default="of --serving, or cpu"),
    ] = None,
    graph_parity: Annotated[
        bool,
        typer.Option(
            "--accept-graph-parity",
            help="Publish engines that could not run where they were exported.",
        ),
    ] = False,
    champion: Annotated[
        bool, typer.Option("--champion", help="Make it the champion, whichever is it now.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for another publisher.")] = 60.0,
) -> None:
    try:
        settings = read_yaml(serving, ServingSettings) if serving else ServingSettings()
        if profile:
            settings = convert(
                {**settings_of(settings), "profile": profile}, ServingSettings, "--profile"
            )
        with console.status("checking the engines") as status:
            release = publish(
                engines,
                out,
                settings,
                graph_parity=graph_parity,
                wait_s=wait,
                on_step=lambda step: status.update(step),
            )
        console.print(f"published [bold]{release.name}[/bold] in {release}")
        store = ReleaseStore(out, wait)
        if champion:
            store.set_champion(release.name, "published as the champion")
    except GateRefusedError as error:
        _say("refused", error)
        raise typer.Exit(REFUSED) from None
    except (ContractError, PublishError) as error:
        _say("error", error)
        raise typer.Exit(BAD_INPUT) from None
    try:
        console.print(f"the champion is {store.record().release}")
    except ContractError as error:  # a folder of releases from before there were champions
        errors.print(f"note: {error}", style="yellow", markup=False, soft_wrap=True)


def _say(what: str, error: Exception) -> None:
    errors.print(f"{what}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command(help=__doc__, epilog=EXAMPLES)(main)

if __name__ == "__main__":
    app()

"""Render the Kubernetes manifests, and check them without a cluster.

Checked are: the API's schemas (the oldest and the newest Kubernetes that we support), the rules of
security that every workload keeps to, and that every name which an object refers to exists. What is
rendered is what kubectl's own kustomize makes of deploy/kubernetes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from contracts.reading import ContractError
from deploy.cluster.references import reference_faults
from deploy.cluster.rendering import alert_rules, kustomizations, pin_images, render
from deploy.cluster.rules import rule_faults
from deploy.cluster.schemas import VERSIONS, schema_faults

EXAMPLES = """
Examples:

  python deploy/manifests.py check                        every overlay and example

  python deploy/manifests.py check my-cluster/            an overlay of yours

  python deploy/manifests.py render production-gpu --digests digests.yaml | kubectl apply -f -

  python deploy/manifests.py render dev --out dev.yaml

  python deploy/manifests.py alerts | kubectl apply -f -

Exit codes: 0 done, 2 bad input (it does not render), 3 refused: a schema, a rule or a name.
"""

BAD_INPUT, REFUSED = 2, 3

app = typer.Typer(
    help=__doc__, epilog=EXAMPLES, add_completion=False, no_args_is_help=True, rich_markup_mode=None
)
console, errors = Console(), Console(stderr=True)


@app.command("render")
def render_command(
    name: Annotated[str, typer.Argument(help="An overlay or example by name, or a folder.")],
    digests: Annotated[
        Path | None,
        typer.Option(help="YAML, image with tag: sha256:...; without one for each, refused."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A file in place of stdout.")] = None,
) -> None:
    """Print a kustomization's objects, with every image pinned by its digest if these are given."""
    with _reported():
        objects = render(_folder(name))
        if digests is not None:
            pin_images(objects, _read_digests(digests))
        text = yaml.safe_dump_all(objects, sort_keys=False)
        if out is None:
            sys.stdout.write(text)
        else:
            out.write_text(text, encoding="utf-8")


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="By name, or folders; without any, all that is here.")
    ] = None,
    kubernetes_version: Annotated[
        list[str] | None, typer.Option(help=f"Repeatable; by default {' and '.join(VERSIONS)}.")
    ] = None,
) -> None:
    """Render and check; says what is wrong with which object."""
    versions = tuple(kubernetes_version or VERSIONS)
    table = Table("kustomization", "objects", "faults", box=None)
    faults: list[str] = []
    with _reported():
        for name in names or list(kustomizations()):
            objects = render(_folder(name))
            # The rules read fields by their names, so what breaks a schema is said alone.
            found = schema_faults(objects, versions) or [
                *rule_faults(objects),
                *reference_faults(objects),
            ]
            faults += [f"{name}: {fault}" for fault in found]
            table.add_row(name, str(len(objects)), str(len(found)))
    console.print(table)
    for fault in faults:
        errors.print(fault, style="red", markup=False, highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(REFUSED)
    console.print(f"valid against Kubernetes {' and '.join(versions)}")


@app.command()
def alerts() -> None:
    """Print the rules of deploy/monitoring as an object of the Prometheus operator."""
    with _reported():
        rules = alert_rules()
        if faults := schema_faults([rules]):
            raise ContractError("; ".join(faults))
        sys.stdout.write(yaml.safe_dump(rules, sort_keys=False, width=1000))


def _folder(name: str) -> Path:
    return kustomizations().get(name, Path(name))


def _read_digests(path: Path) -> dict[str, str]:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ContractError(f"{path}: cannot be read: {error}") from error
    if not isinstance(read, dict) or not all(isinstance(v, str) for v in read.values()):
        raise ContractError(f"{path}: allowed: lines of 'image:tag: sha256:...'")
    return read


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except (ContractError, OSError) as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from None


if __name__ == "__main__":
    app()

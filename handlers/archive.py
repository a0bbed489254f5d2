"""Pack a release as a model archive (.mar) for TorchServe.

The archive holds the handler, both engines, feature spec, manifest, worker settings and the package
contracts, so it needs nothing of the project where it is served. The same release, code and
settings give the same bytes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

import contracts
from contracts.features import FeatureSpec
from contracts.reading import ContractError, read_yaml, write_yaml
from contracts.releases import (
    CHECKPOINT,
    MANIFEST,
    ReleaseManifest,
    file_sha256,
    find_engine,
    verify_release,
)
from contracts.torchserve import (
    DECODER,
    ENCODER,
    FEATURES,
    FORMATS,
    MODEL_CONFIG,
    TorchServeSettings,
    archive_name,
)

EXAMPLES = """
Examples:

  python handlers/archive.py --release releases/r0007 --out model_store

  python handlers/archive.py --release releases/r0007 --out model_store --settings torchserve.yaml

Exit codes: 0 done, 2 bad input.
"""

BAD_INPUT = 2
MODEL_VERSION = "1.0"
HANDLER = Path(__file__).with_name("torchserve_handler.py")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold

app = typer.Typer(add_completion=False, rich_markup_mode=None)
console, errors = Console(), Console(stderr=True)


@app.command(help=__doc__, epilog=EXAMPLES)
def main(
    release: Annotated[Path, typer.Option(help="Folder of a release.")],
    out: Annotated[Path, typer.Option(help="Model store; made if it is not there.")],
    settings: Annotated[
        Path | None,
        typer.Option(help="YAML of worker settings by TorchServe's names (docs/torchserve.md)."),
    ] = None,
) -> None:
    try:
        chosen = read_yaml(settings, TorchServeSettings) if settings else TorchServeSettings()
        with console.status(f"archiving {release.name}"):
            made = make_archive(release, out, chosen)
    except (ContractError, OSError) as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from None
    megabytes = made.stat().st_size / 1e6
    console.print(f"{made}: {megabytes:.1f} MB, sha256 {file_sha256(made)}", soft_wrap=True)


def make_archive(release: Path, out: Path, settings: TorchServeSettings | None = None) -> Path:
    """Verify a release and pack it; the archive appears by one rename, or not at all.

    Returns:
        ``out``/gref_r0007.mar, in place of an older one.

    Raises:
        ContractError: the release is not what its manifest says, its engines are in a format that
            TorchServe cannot run, or torch-model-archiver is missing or failed.
        OSError: the disk is full, or ``out`` cannot be written.
    """
    manifest = verify_release(release)
    files = _files_of(release, manifest)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=out) as folder:
        aside = Path(folder)
        content = aside / "content"
        _collect(release, manifest, files, content)
        write_yaml(aside / MODEL_CONFIG, settings or TorchServeSettings())
        packed = _run_archiver(archive_name(manifest.name), content, aside)
        final = aside / packed.name
        _make_reproducible(packed, final, manifest.created)
        target = out / packed.name
        final.replace(target)
    _sync(out)
    return target


def _files_of(release: Path, manifest: ReleaseManifest) -> dict[str, str]:
    """Name in the archive -> path in the release, of engines that TorchServe can run."""
    try:
        return {
            ENCODER: find_engine(manifest, "encoder", FORMATS).file,
            DECODER: find_engine(manifest, "decoder", FORMATS).file,
            FEATURES: FEATURES,
        }
    except ContractError as error:
        raise ContractError(
            f"{error}: python training/export.py --engine torchscript --checkpoint "
            f"{release / CHECKPOINT} --data SLATES --out ENGINES; Triton serves it as it is "
            f"(profile {manifest.profile})"
        ) from error


def _collect(
    release: Path, manifest: ReleaseManifest, files: dict[str, str], content: Path
) -> None:
    package = content / "contracts"
    package.mkdir(parents=True)
    for source in sorted(Path(contracts.__path__[0]).glob("*.py")):
        shutil.copyfile(source, package / source.name)
    shutil.copyfile(release / MANIFEST, content / MANIFEST)
    for name, file in files.items():
        shutil.copyfile(release / file, content / name)
        if file_sha256(content / name) != manifest.files[file]:
            raise ContractError(f"{release}: {file} changed while it was archived; try again")
    found = read_yaml(content / FEATURES, FeatureSpec).hash()
    if found != manifest.feature_spec_sha256:
        raise ContractError(
            f"{release}: {FEATURES} has hash {found}, the manifest says "
            f"{manifest.feature_spec_sha256}; publish again"
        )


def _run_archiver(name: str, content: Path, aside: Path) -> Path:
    if importlib.util.find_spec("model_archiver") is None:
        raise ContractError(
            "torch-model-archiver is not installed; pip install torch-model-archiver==0.12.0"
        )
    export, scratch = aside / "export", aside / "scratch"
    export.mkdir()  # the archiver wants it to be there
    scratch.mkdir()
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", name]
    command += ["--version", MODEL_VERSION, "--handler", str(HANDLER)]
    command += ["--extra-files", str(content), "--config-file", str(aside / MODEL_CONFIG)]
    command += ["--export-path", str(export)]
    # It works in TMPDIR/NAME and clears that folder first, whoever's it is.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    packed = export / f"{name}.mar"
    if done.returncode or not packed.is_file():
        raise ContractError(f"torch-model-archiver failed: {done.stderr.strip()[-2000:]}")
    return packed


def _make_reproducible(packed: Path, final: Path, created: str) -> None:
    """The same archive without the moment and the folder order of its making, on disk for good."""
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(final, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "MAR-INF/MANIFEST.json":
                stated = json.loads(content)
                stated["createdOn"] = datetime.fromisoformat(created).strftime("%d/%m/%Y %H:%M:%S")
                content = msgspec.json.format(msgspec.json.encode(stated), indent=2)
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            target.writestr(info, content)
    _sync(final)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    app()

"""Compile a checkpoint into engines, check them against eager, and leave them for publishing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from math import isfinite
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import numpy as np
import torch
import typer

from contracts.datasets import read_dataset
from contracts.encoding import EncodedBatch
from contracts.features import FeatureSpec
from contracts.reading import ContractError, convert
from contracts.releases import (
    CHECKPOINT,
    DataVersion,
    Engine,
    Gate,
    Parents,
    file_sha256,
    settings_of,
)
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, weights_sha256
from training.command import Refused, console, exit_codes
from training.data.arrays import SlateArrays, load_slates
from training.decoding.run import Mode
from training.engines.formats import PARITY, EngineSettings, engine_format
from training.engines.gates import of_graph
from training.engines.metric_parity import metric_gate
from training.engines.parity import Engines, pad, parity_gates
from training.engines.torchscript import eager_engines
from training.release.engines_folder import ENGINES_FILE, EnginesFile, write_engines_folder
from training.release.interface_check import check_interface

EPILOG = """Examples:

python training/export.py --checkpoint runs/demo/post_train/best.pt --data slates/ --out engines/

python training/export.py --checkpoint best.pt --data slates/ --out plans/ --engine tensorrt --precision fp16 --compute-capability 8.9 --container 26.07-py3

python training/publish.py --engines engines/ --out releases/
"""  # noqa: E501

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    checkpoint: Annotated[Path, typer.Option(help="A best.pt of pre-training or post-training.")],
    data: Annotated[Path, typer.Option(help="Prepared slates: the requests of the parity gate.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    mode: Annotated[str, typer.Option(help="omtp, one_at_a_time or verified.")] = "omtp",
    requests: Annotated[int, typer.Option(min=1, help="Requests of the parity gate.")] = 256,
    tolerance: Annotated[
        Optional[float],
        typer.Option(help="Largest difference of a score.", show_default="by precision"),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Format: torchscript, tensorrt or aotinductor.")
    ] = "torchscript",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    compute_capability: Annotated[
        Optional[str],
        typer.Option(help="Of the GPU to build for: 8.9.", show_default="this machine's"),
    ] = None,
    container: Annotated[
        Optional[str], typer.Option(help="Tag of the container that will serve: 26.07-py3.")
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Rows of one call of a plan.")] = 64,
) -> None:
    """Compile a checkpoint into an encoder and a decoder engine.

    Exit code 0: the engines pass the parity gate; 2: bad input; 3: they do not pass, and
    publishing will refuse them.
    """
    torch.set_num_threads(1)
    with exit_codes():
        if mode not in ("omtp", "one_at_a_time", "verified"):
            raise ValueError(f"--mode {mode}; allowed: omtp, one_at_a_time, verified")
        settings = convert(
            {
                "format": engine,
                "precision": precision,
                "compute_capability": compute_capability,
                "container": container,
                "max_batch": max_batch,
            },
            EngineSettings,
            "options",
        )
        with console.status(f"building {engine} engines"):
            gates = export(checkpoint, data, out, mode, requests, tolerance, settings)  # type: ignore[arg-type]
        for gate in gates:
            state = "[green]pass[/green]" if gate.passed else "[red]FAIL[/red]"
            console.print(
                f"{state} {gate.name}: {gate.value:.3g} (limit {gate.limit:g}) {gate.detail}"
            )
        if not all(gate.passed for gate in gates):
            raise Refused("the engines differ from the eager model; do not serve them")
    console.print(f"engines in {out}; publish them with training/publish.py --engines {out}")


def export(
    checkpoint_file: Path,
    data: Path,
    out: Path,
    mode: Mode = "omtp",
    requests: int = 256,
    tolerance: float | None = None,
    engine: EngineSettings | None = None,
) -> tuple[Gate, ...]:
    """Write engines and engines.json, with the gates of a parity check on held-out requests."""
    checkpoint = load_checkpoint(checkpoint_file)
    dataset, spec = read_dataset(data)
    if spec.hash() != checkpoint.spec.hash():
        raise ContractError(
            f"{data}: feature spec {spec.hash()[:12]}, the checkpoint's "
            f"{checkpoint.spec.hash()[:12]}; give the slates that it was trained on"
        )
    slates = load_slates(data / "test", spec, requests)
    return export_engines(
        checkpoint,
        requests_of(slates, spec),
        DataVersion(dataset=dataset.source, fingerprint=dataset.fingerprint),
        out,
        mode,
        tolerance,
        engine=engine,
        slates=slates,
    )


def export_engines(
    checkpoint: Checkpoint,
    requests: Iterable[EncodedBatch],
    data: DataVersion,
    out: Path,
    mode: Mode = "omtp",
    tolerance: float | None = None,
    *,
    engine: EngineSettings | None = None,
    slates: SlateArrays | None = None,
) -> tuple[Gate, ...]:
    """Compile a checkpoint, check it against eager on ``requests``, and describe the engines.

    They are made aside and renamed: an export that fails leaves ``out`` as it was.

    Args:
        tolerance: largest difference of a score; None is the precision's.
        engine: format, precision and target; TorchScript by default.
        slates: of the requests, for the ranking metrics that a lower precision is compared by.

    Raises:
        ContractError: ``out`` holds something that is not a folder of engines, or the format
            cannot be built here; the message says what to do.
        OSError: the disk is full, or the folder cannot be written.
    """
    engine = engine or EngineSettings()
    limits = msgspec.structs.replace(
        PARITY[engine.precision], temperatures=(0.0,) if mode == "verified" else (0.0, 1.0)
    )
    if tolerance is not None:
        limits = msgspec.structs.replace(limits, score=tolerance)
    model = checkpoint.model()
    if out.exists() and any(out.iterdir()) and not (out / ENGINES_FILE).exists():
        raise ContractError(f"{out}: not empty, and not a folder of engines; give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        aside.chmod(0o755)  # mkdtemp's own is for one user
        saved = engine_format(engine.format).save(model, aside, engine, mode)
        save_checkpoint(aside / CHECKPOINT, checkpoint)
        spec = checkpoint.spec
        width = check_interface(
            saved.runs, spec, *(aside / one.file for one in saved.engines if one.part != "noise")
        )
        eager = Engines(*eager_engines(model, mode), spec.list_size)
        batches = list(requests)
        gates = parity_gates(eager, saved.runs, batches, spec.candidate_buckets, limits)
        if slates is not None and engine.precision != "fp32":
            gates = (*gates, metric_gate(eager, saved.runs, batches, slates))
        if saved.instead:
            gates = of_graph(gates, saved.instead)
        described = _description(checkpoint, data, aside, saved.engines, gates)
        if engine.format != "torchscript":
            described = msgspec.structs.replace(described, width=width)
        write_engines_folder(aside, described, spec)
        if out.exists():
            shutil.rmtree(out)
        aside.rename(out)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(out)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return gates


def requests_of(slates: SlateArrays, spec: FeatureSpec, size: int = 32) -> Iterator[EncodedBatch]:
    """The requests of slates, in batches padded to a bucket."""
    for batch in slates.batches(size):
        encoded = EncodedBatch(
            item_cat=batch.item_cat.numpy(),
            item_dense=batch.item_dense.numpy(),
            user_cat=batch.user_cat.numpy(),
            user_dense=batch.user_dense.numpy(),
            count=batch.count.numpy().astype(np.int32),
        )
        yield pad(encoded, spec.bucket(batch.candidates))


def _description(
    checkpoint: Checkpoint,
    data: DataVersion,
    out: Path,
    engines: tuple[Engine, ...],
    gates: tuple[Gate, ...],
) -> EnginesFile:
    anchor = checkpoint.parents.get("anchor") or weights_sha256(checkpoint.weights)
    return EnginesFile(
        engines=engines,
        feature_spec_sha256=checkpoint.spec.hash(),
        list_size=checkpoint.spec.list_size,
        heads=checkpoint.settings.model.heads,
        settings=settings_of(checkpoint.settings),
        data=data,
        parents=Parents(anchor=anchor, reference_sha256=checkpoint.parents.get("reference_sha256")),
        gates=gates,
        files={
            name: file_sha256(out / name) for name in (*(one.file for one in engines), CHECKPOINT)
        },
        metrics={name: score for name, score in checkpoint.scores.items() if isfinite(score)},
    )


if __name__ == "__main__":
    app()

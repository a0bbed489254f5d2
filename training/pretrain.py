"""Pre-train Gen-Reranker on the given order and then on exposure order, with OMTP.

Several GPUs or machines: ``torchrun --nproc-per-node 8 training/pretrain.py ...``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import torch
import typer

from contracts.datasets import Dataset
from contracts.features import FeatureSpec
from contracts.reading import stable_hash
from training.alarms import duplicates
from training.checkpoint import Checkpoint, data_identity, save_checkpoint, weights_sha256
from training.command import Refused, console, exit_codes, settings_for
from training.curves import plot_history
from training.data.arrays import load_slates
from training.data.facts import FACTS, facts_of, facts_text
from training.distributed import Processes, processes
from training.loop import History, Stage, run_stage
from training.model.gen_reranker import GenReranker
from training.objectives import PretrainObjective
from training.settings import TrainingSettings
from training.validation import Validation

EPILOG = """Examples:

python training/pretrain.py --data slates/ --out runs/demo

python training/pretrain.py --data slates/ --out runs/demo --set pretrain.lambda_o=0.3

A run that was killed goes on with the same command, to the same losses.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    data: Annotated[Path, typer.Option(help="Folder of training/prepare.py.")],
    out: Annotated[Path, typer.Option(help="Run folder; writes pretrain/ in it.")],
    settings: Annotated[
        Optional[Path], typer.Option(help="YAML; by default the one of the data's source.")
    ] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="A setting, e.g. model.width=32.")
    ] = None,
) -> None:
    """Pre-train a policy; the best epoch on held-out slates becomes OUT/pretrain/best.pt.

    Exit code 0: done; 2: bad input; 3: an alarm stopped the run.
    """
    with exit_codes(), processes() as here:
        dataset, spec, typed = settings_for(data, settings, set_ or ())
        history = pretrain(data, dataset, spec, typed, out, here)
        if here.is_first:
            console.print(
                f"best epoch {history.best_epoch} (held-out ndcg {history.best_score:.4f}); "
                f"{out / 'pretrain' / 'best.pt'}; curves in {out / 'pretrain' / 'curves.png'}"
            )
        if history.alarm:
            raise Refused(history.alarm)


def pretrain(
    data: Path,
    dataset: Dataset,
    spec: FeatureSpec,
    settings: TrainingSettings,
    out: Path,
    here: Processes,
) -> History:
    """The stage as a function; leaves ``out``/pretrain/best.pt."""
    folder = out / "pretrain"
    train = load_slates(data / "train", spec)
    valid = load_slates(data / "valid", spec, like=train)
    torch.manual_seed(settings.seed)
    model = GenReranker(spec, settings.model).to(here.device)
    stage = Stage(
        name="pretrain",
        objective=PretrainObjective(model, settings.pretrain, spec.list_size, settings.seed),
        optim=settings.pretrain.optim,
        validate=Validation(model, valid, here.device),
        selection="ndcg",
        epochs=settings.pretrain.optim.epochs,
        seed=settings.seed,
        identity=stable_hash(
            [data_identity(dataset), settings.model, settings.pretrain, settings.seed]
        ),
        alarm=duplicates,
        first_choice=settings.pretrain.given_epochs + 1,
    )
    history = run_stage(stage, train, folder, here)
    if here.is_first:
        save_checkpoint(
            folder / "best.pt",
            Checkpoint(
                spec=spec,
                settings=settings,
                stage="pretrain",
                weights=model.state_dict(),
                data={
                    "dataset": dataset.source,
                    "fingerprint": dataset.fingerprint,
                    FACTS: facts_text(facts_of(train)),
                },
                parents={"anchor": weights_sha256(model.state_dict())},
                scores={"ndcg": history.best_score},
            ),
        )
        plot_history(history, folder / "curves.png", "Pre-training")
    return history


if __name__ == "__main__":
    app()

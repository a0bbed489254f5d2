"""Rerank-DPO: post-train a pre-trained policy on preference pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import msgspec
import typer

from contracts.datasets import Dataset
from contracts.features import FeatureSpec
from contracts.reading import ContractError, stable_hash
from training.alarms import collapse, duplicates, extrapolation
from training.checkpoint import (
    Checkpoint,
    data_identity,
    load_checkpoint,
    save_checkpoint,
    weights_sha256,
)
from training.command import Refused, console, exit_codes, settings_for
from training.curves import plot_history
from training.data.arrays import load_slates
from training.data.facts import FACTS, facts_of, facts_text
from training.distributed import Processes, processes
from training.label_store import LabelStore
from training.labels import make_labels
from training.loop import History, Stage, run_stage
from training.model.softening import soften
from training.objectives import RerankDpoObjective
from training.optimism import Optimism, true_gain
from training.settings import TrainingSettings
from training.validation import Validation

EPILOG = """Examples:

python training/post_train.py --data slates/ --checkpoint runs/demo/pretrain/best.pt --out runs/demo

python training/post_train.py --data slates/ --checkpoint runs/demo/pretrain/best.pt
  --out runs/paper --set post_train.pairs.source=exposure --set post_train.likelihood=none
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    data: Annotated[Path, typer.Option(help="Folder of training/prepare.py.")],
    # Not --start: torchrun takes that for a beginning of its own --start-method.
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint to start from: the DPO reference.")],
    out: Annotated[Path, typer.Option(help="Run folder; writes post_train/ in it.")],
    settings: Annotated[
        Optional[Path], typer.Option(help="YAML; by default the one of the data's source.")
    ] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="A setting, e.g. post_train.beta=0.3.")
    ] = None,
) -> None:
    """Post-train a policy; the best epoch on held-out slates becomes OUT/post_train/best.pt.

    Epoch 0 is the starting policy: if no epoch is better, that is what comes out.

    Exit code 0: done; 2: bad input; 3: refused: the evaluator is no better than the position
    alone, or an alarm (DPO collapse) stopped the run. OUT/post_train/best.pt is then the best
    policy before the alarm.
    """
    with exit_codes(), processes() as here:
        dataset, spec, typed = settings_for(data, settings, set_ or ())
        if here.is_first and any(one.startswith(("model.", "pretrain.")) for one in set_ or ()):
            console.print(
                "[yellow]--set model.* and pretrain.*: the checkpoint's hold here[/yellow]"
            )
        history = post_train(data, dataset, spec, typed, checkpoint, out, here)
        if here.is_first:
            console.print(
                f"best epoch {history.best_epoch} (held-out score {history.best_score:.4f}); "
                f"{out / 'post_train' / 'best.pt'}; curves in {out / 'post_train' / 'curves.png'}"
            )
        if history.alarm:
            raise Refused(history.alarm)


def post_train(
    data: Path,
    dataset: Dataset,
    spec: FeatureSpec,
    settings: TrainingSettings,
    start: Path,
    out: Path,
    here: Processes,
    labels_in: LabelStore | None = None,
    epoch: Literal["best", "latest"] = "best",
) -> History:
    """The stage as a function; leaves ``out``/post_train/best.pt.

    Args:
        labels_in: where evaluators and their lists are kept; ``out``/post_train if left.
        epoch: which one is chosen: the judge's ``best``, or the ``latest`` that the judge cannot
            tell from it. Where held-out logs choose, the best.
    """
    folder = out / "post_train"
    begun = load_checkpoint(start)
    if begun.spec.hash() != spec.hash():
        raise ContractError(
            f"{start}: feature spec {begun.spec.hash()[:12]}, the data's {spec.hash()[:12]}; "
            "start from a checkpoint of this data"
        )
    train = load_slates(data / "train", spec)
    valid = load_slates(data / "valid", spec, like=train)
    model = begun.model().to(here.device)
    reference_sha256 = weights_sha256(begun.weights)
    known = sorted((name, weights_sha256(one)) for name, one in begun.evaluators.items())
    labels = make_labels(
        train,
        valid,
        settings,
        begun.evaluators,
        stable_hash([data_identity(dataset), known]),
        labels_in or LabelStore(folder),
        model,
        here,
    )
    judge = None if labels.two is None else labels.two.judge.evaluator
    list_size = min(spec.list_size, int(valid.count.max()))
    all_shown = bool((valid.count <= (valid.exposed >= 0).sum(1)).all())
    post = settings.post_train
    objective = RerankDpoObjective(model, labels.source, post, settings.seed, labels.teacher)
    further = None
    if labels.two is not None:
        further = Optimism(
            model,
            objective.reference,
            valid,
            here.device,
            labels.two.labeller.evaluator,
            labels.two.judge.evaluator,
            true_gain(dataset, valid),
        )
    # Where every candidate was shown, the log itself ranks lists; elsewhere the judge can.
    selection = "ndcg" if all_shown else "value" if judge else "ndcg_shown"
    stage = Stage(
        name="post_train",
        objective=objective,
        optim=post.optim,
        validate=Validation(model, valid, here.device, judge, further),
        selection=selection,
        slack="value_se" if epoch == "latest" and selection == "value" else "",
        epochs=post.optim.epochs,
        seed=settings.seed,
        identity=stable_hash(
            [
                *(data_identity(dataset), post, settings.seed, reference_sha256),
                *(list_size, known, epoch),
            ]
        ),
        refusal=labels.refusal,
        enough=lambda scores: extrapolation(post.max_kl, post.max_optimism, scores),
        alarm=lambda scores: duplicates(scores) or collapse(post.collapse_nats, scores),
    )
    history = run_stage(stage, train, folder, here)
    if labels.teacher is not None and history.best_epoch > 0:
        soften(model, post.soften)
    if here.is_first:
        save_checkpoint(
            folder / "best.pt",
            Checkpoint(
                spec=spec,
                settings=made_by(settings, begun.settings),
                stage="post_train",
                weights=model.state_dict(),
                data={
                    "dataset": dataset.source,
                    "fingerprint": dataset.fingerprint,
                    FACTS: facts_text(facts_of(train)),
                },
                parents={**begun.parents, "reference_sha256": reference_sha256},
                scores={stage.selection: history.best_score},
                evaluators=begun.evaluators if labels.two is None else labels.two.weights,
            ),
        )
        plot_history(history, folder / "curves.png", "Rerank-DPO")
    return history


def made_by(settings: TrainingSettings, begun: TrainingSettings) -> TrainingSettings:
    """What a post-trained policy was made by: its model and pre-training are the checkpoint's."""
    return msgspec.structs.replace(settings, model=begun.model, pretrain=begun.pretrain)


if __name__ == "__main__":
    app()

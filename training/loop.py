"""The training loop that pre-training and post-training share.

Repeatable: the order of the slates and every random number depend on (seed, epoch) alone, so a run
that was killed goes on from its last epoch to the same losses. The loss of a global batch is the
mean over its slates, so several processes with equal shards compute the gradients of one.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from contracts.reading import ContractError
from training.checkpoint import load_tensors, save_atomically
from training.data.arrays import SlateArrays
from training.distributed import Processes
from training.settings import OptimSettings

Validate = Callable[[], dict[str, float]]


@dataclass
class History:
    """What each epoch gave; written to ``history.json`` beside the checkpoints."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = -math.inf
    stopped: str = ""
    alarm: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: of the stage, in logs.
        objective: called as objective(batch, epoch) for the loss and scalars to log; its
            ``model`` attribute is the policy.
        validate: held-out scores; ``selection`` among them decides the best epoch.
        identity: hash of everything that the stage's numbers depend on; a run resumes only under
            the same one.
        alarm: looks at an epoch's scalars and names a failure that ends the stage, or "".
        enough: looks at an epoch's scores and says why neither it nor a later one may be chosen, or
            "": the stage then ends as it was before.
        refusal: why the stage must not train at all, or ""; it then gives its input back, with
            this as the alarm.
        first_choice: the first epoch that may be chosen as the best.
        slack: a held-out score, or "". An epoch that is above epoch 0, and below the best by this
            much or less, is chosen for being later (the one-standard-error rule of Breiman et al.,
            1984, with the schedule's end as what is preferred).
    """

    name: str
    objective: nn.Module
    optim: OptimSettings
    validate: Validate
    selection: str
    epochs: int
    seed: int
    identity: str
    alarm: Callable[[dict[str, float]], str] = lambda _: ""
    enough: Callable[[dict[str, float]], str] = lambda _: ""
    refusal: str = ""
    first_choice: int = 0
    slack: str = ""


def run_stage(stage: Stage, slates: SlateArrays, folder: Path, here: Processes) -> History:
    """Train, validate after every epoch, keep the best weights on held-out slates.

    Epoch 0 is the model as it came: a stage that only does harm gives its input back. Leaves
    ``folder``/state.pt (to resume), best weights in the model, history.json and TensorBoard logs.

    Raises:
        ContractError: another run is at work in ``folder``, or left a state of other settings.
    """
    with _only_run(folder, here):
        return _run(stage, slates, folder, here)


@contextmanager
def _only_run(folder: Path, here: Processes) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it when the process dies, however it dies."""
    if not here.is_first:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ContractError(
                f"{folder}: another run is at work there; wait for it, or give another --out"
            ) from None
        yield


def _run(stage: Stage, slates: SlateArrays, folder: Path, here: Processes) -> History:
    if len(slates) < here.world:
        raise ContractError(
            f"{len(slates)} slates for {here.world} processes; start fewer, or give more slates"
        )
    model: nn.Module = stage.objective.model  # type: ignore[assignment]
    wrapped = _distribute(stage.objective, here)
    optimizer = _optimizer(model, stage.optim)
    per_epoch = _batches(len(slates), stage.optim.batch_size, here.world)
    schedule = _schedule(optimizer, stage.optim, stage.epochs * per_epoch)
    history, best, done = _resume(stage, folder / "state.pt", model, optimizer, schedule)
    writer = SummaryWriter(str(folder / "tensorboard")) if here.is_first else None
    if done == 0 and not history.epochs:
        _record(stage, history, 0, {}, stage.validate(), writer)
        best = _copy(model)
        if stage.refusal:
            history.stopped = history.alarm = stage.refusal
        if here.is_first:
            _save(stage, folder, model, optimizer, schedule, history, best, 0)
    with _progress(here) as progress:
        bar = progress.add_task(stage.name, total=stage.epochs * per_epoch)
        progress.update(bar, completed=done * per_epoch)
        for epoch in range(done + 1, stage.epochs + 1):
            if history.stopped:
                break
            started = time.monotonic()
            torch.manual_seed(stage.seed * 1000 + epoch)
            scalars = _epoch(
                stage,
                wrapped,
                slates,
                epoch,
                optimizer,
                schedule,
                here,
                lambda: progress.advance(bar),
            )
            scalars["seconds"] = time.monotonic() - started
            if _record(stage, history, epoch, scalars, stage.validate(), writer):
                best = _copy(model)
            if here.is_first:
                progress.console.print(_line(stage, epoch, history.epochs[-1]), highlight=False)
                _save(stage, folder, model, optimizer, schedule, history, best, epoch)
    if writer is not None:
        writer.close()
    model.load_state_dict(best)
    return history


def _epoch(
    stage: Stage,
    wrapped: nn.Module,
    slates: SlateArrays,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    here: Processes,
    advance: Callable[[], None],
) -> dict[str, float]:
    wrapped.train()
    order = np.random.default_rng([stage.seed, epoch]).permutation(len(slates))
    size = stage.optim.batch_size
    sums: dict[str, float] = defaultdict(float)
    count = _batches(len(slates), size, here.world)
    for number in range(count):
        rows = order[number * size : (number + 1) * size]
        shard = rows[: len(rows) // here.world * here.world][here.rank :: here.world]
        with _autocast(stage.optim, here.device):
            loss, scalars = wrapped(slates.batch(shard, here.device), epoch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{stage.name}: the loss is {loss.item()} in epoch {epoch}, batch {number}; "
                "lower the learning rate, or look for broken features in the slates"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(wrapped.parameters(), stage.optim.clip_norm)
        optimizer.step()
        schedule.step()
        sums["loss"] += float(loss.detach())
        for name, value in scalars.items():
            sums[name] += float(value)
        advance()
    return {name: value / count for name, value in _mean_over(sums, here).items()}


def _mean_over(sums: dict[str, float], here: Processes) -> dict[str, float]:
    if here.world == 1:
        return dict(sums)
    names = sorted(sums)
    values = torch.tensor([sums[name] for name in names], dtype=torch.float64, device=here.device)
    torch.distributed.all_reduce(values)
    return dict(zip(names, (values / here.world).tolist()))


def _record(
    stage: Stage,
    history: History,
    epoch: int,
    scalars: dict[str, float],
    held_out: dict[str, float],
    writer: SummaryWriter | None,
) -> bool:
    """Append an epoch; whether it is the one to keep so far."""
    row = {"epoch": float(epoch), **scalars, **{f"held_out/{k}": v for k, v in held_out.items()}}
    history.epochs.append(row)
    if writer is not None:
        for name, value in row.items():
            writer.add_scalar(f"{stage.name}/{name}", value, epoch)  # type: ignore[no-untyped-call]
    alarm = stage.alarm(row)
    if alarm:
        history.stopped = history.alarm = alarm
        return False
    if enough := stage.enough(row):
        history.stopped = enough
        if epoch > 0:
            return False
    if epoch < min(stage.first_choice, stage.epochs):
        return False
    if held_out[stage.selection] > history.best_score or _as_good(stage, history, held_out):
        history.best_score, history.best_epoch = held_out[stage.selection], epoch
        return True
    patience = stage.optim.patience
    if patience and epoch - max(history.best_epoch, stage.first_choice) >= patience:
        history.stopped = f"no better {stage.selection} for {patience} epochs"
    return False


def _as_good(stage: Stage, history: History, held_out: dict[str, float]) -> bool:
    """Whether the last epoch is not told from the best one by the stage's slack."""
    if not stage.slack or history.best_epoch <= 0:
        return False
    name, first = f"held_out/{stage.selection}", max(stage.first_choice, 1)
    began, *scores = (row[name] for row in (history.epochs[0], *history.epochs[first:]))
    return began < scores[-1] and scores[-1] >= max(scores) - held_out[stage.slack]


def _line(stage: Stage, epoch: int, row: dict[str, float]) -> str:
    shown = {k: v for k, v in row.items() if k not in ("epoch", "seconds")}
    text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"{stage.name} epoch {epoch} ({row.get('seconds', 0):.0f} s): {text}"


def _save(
    stage: Stage,
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    history: History,
    best: dict[str, Tensor],
    epoch: int,
) -> None:
    save_atomically(
        folder / "state.pt",
        {
            "model": _copy(model),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "history": vars(history),
            "best": best,
            "epoch": epoch,
            "identity": stage.identity,
        },
    )
    _write_history(folder / "history.json", history)


def _write_history(path: Path, history: History) -> None:
    """Strict JSON, which knows no infinities and no NaN: null stands for them."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    rows = [{name: plain(value) for name, value in row.items()} for row in history.epochs]
    content = {name: plain(value) for name, value in vars(history).items()} | {"epochs": rows}
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(content, indent=1, allow_nan=False))
    aside.rename(path)


def _resume(
    stage: Stage, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any
) -> tuple[History, dict[str, Tensor], int]:
    if not path.exists():
        return History(), {}, 0
    state = load_tensors(path)
    if state.get("identity") != stage.identity:
        raise ContractError(
            f"{path}: is of a run with other data, settings or starting weights; "
            "give another --out, or remove that folder to start again"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return History(**state["history"]), state["best"], state["epoch"]


def _batches(slates: int, size: int, world: int) -> int:
    """Batches an epoch; a last one too small to give every process a slate is left out."""
    whole, rest = divmod(slates, size)
    return max(1, whole + (rest >= max(world, size // 4)))


def _optimizer(model: nn.Module, optim: OptimSettings) -> torch.optim.Optimizer:
    trainable = [p for p in model.parameters() if p.requires_grad]
    # Norms, biases and embeddings of one column are not decayed, as is usual.
    decayed = [p for p in trainable if p.dim() >= 2]
    rest = [p for p in trainable if p.dim() < 2]
    groups = [
        {"params": decayed, "weight_decay": optim.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optim.learning_rate)


def _schedule(optimizer: torch.optim.Optimizer, optim: OptimSettings, steps: int) -> Any:
    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, optim.warm_up_steps))
        part = min(1.0, step / max(1, steps))
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * part)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _autocast(optim: OptimSettings, device: torch.device) -> torch.autocast:
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    enabled = optim.precision == "bf16" or (optim.precision == "auto" and has_bf16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def _distribute(objective: nn.Module, here: Processes) -> nn.Module:
    if here.world == 1:
        return objective
    # Each stage leaves a part unused: the pointwise head in DPO, the reference's nothing.
    return DistributedDataParallel(objective, find_unused_parameters=True)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _progress(here: Processes) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not here.is_first,
        transient=True,
    )

"""Fits evaluators on logged slates, and gates them: a bad evaluator does real harm."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from training.data.arrays import SlateArrays
from training.pairs.calibration import calibration_slope
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.settings import EvaluatorSettings

log = logging.getLogger(__name__)

#: Standard errors of a one-sided test at the 5 % level.
ONE_SIDED_95 = 1.645

#: An evaluator fitted anew takes at least so many steps: of few slates, more epochs. With two
#: epochs of 1,000 lists (32 steps) it predicted held-out ones no better than chance.
MIN_STEPS = 100

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EvaluatorReport:
    """How well an evaluator predicts held-out lists.

    Attributes:
        loss: held-out log-loss (binary utility) or squared error.
        position_rate_loss: that of the mean utility at each position, its bar.
        gain: share by which it is better.
        accepted: whether the gain reaches ``min_gain`` and is above 0 at the 5 % level, one-sided,
            over the users of held-out lists.
        slope: of its calibration; below 1 it is too sure of itself.
    """

    loss: float
    position_rate_loss: float
    gain: float
    accepted: bool
    slope: float


def share_of_users(
    users: npt.NDArray[np.object_], share: float, salt: str
) -> npt.NDArray[np.bool_]:
    """Which rows [S] belong to a stable share of the users."""
    limit = int(share * 2**32)
    inside = {
        user: xxhash.xxh32_intdigest(f"{salt}:{user}".encode()) < limit for user in set(users)
    }
    return np.array([inside[user] for user in users])


def fit_evaluator(
    train: SlateArrays,
    held_out: SlateArrays,
    settings: EvaluatorSettings,
    seed: int,
    device: torch.device,
    progress: Callable[[str], None] = log.info,
    start: Mapping[str, torch.Tensor] | None = None,
) -> tuple[Evaluator, EvaluatorReport]:
    """Fit on ``train``, stop and gate on ``held_out`` (later slates).

    Args:
        start: weights of an earlier evaluator to go on from; they stay as they are where no epoch
            is better on ``held_out``. What it has counted goes on in any case.
    """
    torch.manual_seed(seed)
    evaluator = Evaluator(train.spec, settings).to(device)
    optim = settings.optim if start is None else settings.again
    if start is not None:
        evaluator.load_state_dict(start)
        evaluator.id_dropout = 0.0  # it knows the identities from many slates; let it keep them
    evaluator.count(train)
    optimizer = torch.optim.AdamW(
        evaluator.parameters(), lr=optim.learning_rate, weight_decay=optim.weight_decay
    )
    per_epoch = max(1, -(-len(train) // optim.batch_size))
    epochs = optim.epochs
    if start is None and epochs:
        epochs = max(epochs, math.ceil(MIN_STEPS / per_epoch))
    steps = max(1, epochs * per_epoch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, optim.learning_rate, steps)
    shown = held_out.exposed >= 0
    best, best_loss, bad = copy.deepcopy(evaluator.state_dict()), float("inf"), 0
    if start is not None:
        best_loss = float(held_out_losses(evaluator, held_out, device)[shown].mean())
    for epoch in range(epochs):
        evaluator.train()
        order = np.random.default_rng([seed, epoch]).permutation(len(train))
        for first in range(0, len(order), optim.batch_size):
            loss = evaluator.loss(train.batch(order[first : first + optim.batch_size], device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(evaluator.parameters(), optim.clip_norm)
            optimizer.step()
            schedule.step()
        held = float(held_out_losses(evaluator, held_out, device)[shown].mean())
        progress(f"evaluator epoch {epoch + 1}: held-out loss {held:.5f}")
        if held < best_loss:
            best, best_loss, bad = copy.deepcopy(evaluator.state_dict()), held, 0
        elif optim.patience and (bad := bad + 1) >= optim.patience:
            break
    evaluator.load_state_dict(best)
    evaluator.eval().requires_grad_(False)
    report = report_of(evaluator, train, held_out, settings.min_gain, device)
    progress(
        f"evaluator: held-out loss {report.loss:.5f}, by position alone "
        f"{report.position_rate_loss:.5f}"
    )
    return evaluator, report


def report_of(
    evaluator: Evaluator | Ensemble,
    train: SlateArrays,
    held_out: SlateArrays,
    min_gain: float,
    device: torch.device,
) -> EvaluatorReport:
    """How well held-out slates are predicted, against the position's rate on ``train``."""
    said, shown = held_out_outputs(evaluator, held_out, device), held_out.exposed >= 0
    ours = _losses(said, held_out.utility, evaluator.binary)
    label = held_out.utility[shown].astype(np.float64)
    slope = calibration_slope(said[shown], label, evaluator.binary)
    position = position_rate_losses(train, held_out)
    loss, bar = float(ours[shown].mean()), float(position[shown].mean())
    gain = 1 - loss / bar if bar > 0 else 0.0
    saved = by_user(np.where(shown, position - ours, 0.0).sum(axis=1), held_out.user)
    accepted = gain >= min_gain and (min_gain < 0 or surely_positive(saved))
    return EvaluatorReport(loss, bar, gain, accepted, slope)


def by_user(values: Float64, users: npt.NDArray[np.object_]) -> Float64:
    """Sums of a value of lists [S] over each user's: lists of one user are alike."""
    _, codes = np.unique(users.astype(str), return_inverse=True)
    return np.asarray(np.bincount(codes, weights=values), np.float64)


def surely_positive(values: Float64) -> bool:
    """Whether a mean is above 0 at the 5 % level, one-sided; never of a single value."""
    if len(values) < 2:
        return False
    return bool(values.mean() > ONE_SIDED_95 * values.std(ddof=1) / len(values) ** 0.5)


@torch.no_grad()
def held_out_outputs(
    evaluator: Evaluator | Ensemble, slates: SlateArrays, device: torch.device
) -> Float64:
    """Logit (binary utility) or value of each shown item [S, N]; meaningless where none was."""
    evaluator.eval()
    said = np.zeros(slates.exposed.shape)
    for batch in slates.batches(512, device):
        expected = evaluator.expected(batch, batch.exposed.unsqueeze(1))[:, 0]
        each = torch.logit(expected, eps=1e-7) if evaluator.binary else expected
        said[batch.row.cpu().numpy(), : each.shape[1]] = each.cpu().numpy()
    return said


def held_out_losses(
    evaluator: Evaluator | Ensemble, slates: SlateArrays, device: torch.device
) -> Float64:
    """Log-loss or squared error of each shown item [S, N]; meaningless where none was shown."""
    said = held_out_outputs(evaluator, slates, device)
    return _losses(said, slates.utility, evaluator.binary)


def _losses(said: Float64, utility: Float32, binary: bool) -> Float64:
    losses: Float64 = np.logaddexp(0, said) - utility * said if binary else (said - utility) ** 2
    return losses


def position_rate_losses(train: SlateArrays, held_out: SlateArrays) -> Float64:
    """The same [S, N] for the mean utility at each position, fitted on ``train``."""
    shown = train.exposed >= 0
    rate = np.where(shown, train.utility, 0).sum(0) / np.maximum(1, shown.sum(0))
    width = max(train.exposed.shape[1], held_out.exposed.shape[1])
    rate = np.pad(rate, (0, width - len(rate)), constant_values=rate.mean())
    rate = rate[: held_out.exposed.shape[1]]
    utility = held_out.utility
    losses: Float64
    if train.spec.utility_kind.type == "binary":
        p = np.clip(rate, 1e-6, 1 - 1e-6)
        losses = -(utility * np.log(p) + (1 - utility) * np.log(1 - p))
    else:
        losses = (utility - rate) ** 2
    return losses

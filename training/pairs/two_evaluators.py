"""The two evaluators of policy pairs, fitted on different users: one labels, the other judges.

Both are kept beside the run's checkpoints: a run that was killed need not fit them again, and
whoever compares policies later (a refresh's gates) asks the judge that chose the epoch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from training.checkpoint import load_tensors, save_atomically
from training.data.arrays import SlateArrays
from training.pairs.evaluator import Evaluator
from training.pairs.fit_evaluator import EvaluatorReport, fit_evaluator, share_of_users
from training.settings import EvaluatorSettings

EVALUATORS_FILE = "evaluators.pt"

#: Weights of the two by name, as a checkpoint carries them.
Weights = dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Fitted:
    """An evaluator and how well it predicts held-out lists."""

    evaluator: Evaluator
    report: EvaluatorReport


@dataclass(frozen=True)
class TwoEvaluators:
    """``labeller`` ranks the lists of pairs, ``judge`` the policy's lists after every epoch."""

    labeller: Fitted
    judge: Fitted

    @property
    def weights(self) -> Weights:
        """What ``fit_two`` can go on from."""
        both = {"labeller": self.labeller, "judge": self.judge}
        return {name: one.evaluator.state_dict() for name, one in both.items()}

    @property
    def accepted(self) -> bool:
        return self.labeller.report.accepted and self.judge.report.accepted


def fit_two(
    train: SlateArrays,
    valid: SlateArrays,
    settings: EvaluatorSettings,
    seed: int,
    device: torch.device,
    start: Weights | None = None,
) -> TwoEvaluators:
    """Fit both; ``settings.judge_share`` of the users are the judge's, and always the same ones.

    Args:
        start: earlier ones to go on from, where that predicts held-out slates better than
            beginning anew does.

    Raises:
        ContractError: the share leaves no user for one of them, or ``start`` is of other settings.
    """
    judged = share_of_users(train.user, settings.judge_share, "judge")
    if judged.all() or not judged.any():
        raise ContractError(
            f"of {len(set(train.user))} users in train, judge_share "
            f"{settings.judge_share:.2f} leaves none to label or none to judge; give "
            "slates of more users, or take mirrored pairs"
        )
    fitted = []
    for add, (name, part) in enumerate((("labeller", ~judged), ("judge", judged))):
        own = train.take(part.nonzero()[0])
        ways = [Fitted(*fit_evaluator(own, valid, settings, seed + add, device))]
        if start:
            ways.append(_gone_on(own, valid, settings, seed + add, device, start[name]))
        # At a tie the earlier one, which has seen more.
        fitted.append(min(reversed(ways), key=lambda one: one.report.loss))
    return TwoEvaluators(*fitted)


def _gone_on(
    own: SlateArrays,
    valid: SlateArrays,
    settings: EvaluatorSettings,
    seed: int,
    device: torch.device,
    start: dict[str, torch.Tensor],
) -> Fitted:
    try:
        return Fitted(*fit_evaluator(own, valid, settings, seed, device, start=start))
    except RuntimeError as error:
        raise ContractError(
            "the evaluators of the checkpoint that this starts from are of another size; keep "
            "post_train.pairs.evaluator's width, layers and heads as they were"
        ) from error


def save_two(file: Path, two: TwoEvaluators, identity: str) -> None:
    """Write both atomically; ``identity`` is a hash of all that they depend on."""
    state: dict[str, object] = {"identity": identity}
    for name, one in (("labeller", two.labeller), ("judge", two.judge)):
        state[name] = {"weights": one.evaluator.state_dict(), "report": asdict(one.report)}
    save_atomically(file, state)


def load_two(
    file: Path,
    spec: FeatureSpec,
    settings: EvaluatorSettings,
    device: torch.device,
    identity: str | None = None,
) -> TwoEvaluators | None:
    """What ``save_two`` wrote; None where there is none, or it is of another ``identity``.

    Raises:
        ContractError: the file is damaged.
    """
    if not file.exists():
        return None
    state = load_tensors(file)
    if identity is not None and state.get("identity") != identity:
        return None
    try:
        return TwoEvaluators(
            *(_restore(state[name], spec, settings, device) for name in ("labeller", "judge"))
        )
    except (KeyError, TypeError, RuntimeError) as error:
        raise ContractError(
            f"{file}: does not hold two evaluators of these settings; remove it to fit them again"
        ) from error


def _restore(
    state: dict[str, object], spec: FeatureSpec, settings: EvaluatorSettings, device: torch.device
) -> Fitted:
    evaluator = Evaluator(spec, settings).to(device)
    evaluator.load_state_dict(state["weights"])  # type: ignore[arg-type]
    evaluator.eval().requires_grad_(False)
    return Fitted(evaluator, EvaluatorReport(**state["report"]))  # type: ignore[arg-type]

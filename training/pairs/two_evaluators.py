"""The two evaluators of policy pairs: one labels, the other, fitted on fewer users, judges.

With ``apart`` the labelling one leaves the judge's users out, and the judge knows nothing that it
knows; else the judge's view of a gain is only in part another's.

The labelling one is an ensemble (``labellers`` members), for it is searched; the judge is one.

Both are kept beside the run's checkpoints: a run that was killed need not fit them again, and
whoever compares policies later (a refresh's gates) asks the judge that chose the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from training.checkpoint import load_tensors, save_atomically
from training.data.arrays import SlateArrays
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.pairs.fit_evaluator import (
    EvaluatorReport,
    by_user,
    fit_evaluator,
    held_out_losses,
    report_of,
    share_of_users,
    surely_positive,
)
from training.settings import EvaluatorSettings

EVALUATORS_FILE = "evaluators.pt"

#: Weights of one of them, and of the two by name, as a checkpoint carries them.
State = dict[str, torch.Tensor]
Weights = dict[str, State]


Model = TypeVar("Model", Evaluator, Ensemble)


@dataclass(frozen=True)
class Fitted(Generic[Model]):
    """An evaluator, or several as one, and how well it predicts held-out lists."""

    evaluator: Model
    report: EvaluatorReport


@dataclass(frozen=True)
class TwoEvaluators:
    """``labeller`` ranks the lists of pairs, ``judge`` the policy's lists after every epoch."""

    labeller: Fitted[Ensemble]
    judge: Fitted[Evaluator]

    @property
    def weights(self) -> Weights:
        """What ``fit_two`` can go on from."""
        return {
            "labeller": self.labeller.evaluator.state_dict(),
            "judge": self.judge.evaluator.state_dict(),
        }

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
        start: earlier ones to go on from, unless beginning anew predicts held-out slates better,
            and not by chance.

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
    own = train.take((~judged).nonzero()[0]) if settings.apart else train
    judges = train.take(judged.nonzero()[0])
    fit = _Fit(valid, settings, device)
    earlier = start or {}
    return TwoEvaluators(
        labeller=fit.several(own, seed, earlier.get("labeller")),
        judge=fit.one(judges, _seed_of(seed, _JUDGE), earlier.get("judge")),
    )


_JUDGE = 1
_MEMBERS = [number for number in range(100) if number != _JUDGE]


def _seed_of(seed: int, number: int) -> int:
    """Of the judge or of a member: runs of different seeds have no evaluator in common."""
    return 1000 * seed + number


@dataclass(frozen=True)
class _Fit:
    """Fits evaluators anew and, where there are earlier ones, from those; gives the better."""

    valid: SlateArrays
    settings: EvaluatorSettings
    device: torch.device

    def one(self, own: SlateArrays, seed: int, start: State | None) -> Fitted[Evaluator]:
        anew = self._fit(own, seed, None)
        if start is None:
            return anew
        further = self._fit(own, seed, start)
        # In doubt the one that has seen more.
        return anew if self._surely_better(anew, further) else further

    def several(self, own: SlateArrays, seed: int, start: State | None) -> Fitted[Ensemble]:
        anew = self._ensemble(own, seed, [None] * self.settings.labellers)
        if start is None:
            return anew
        further = self._ensemble(own, seed, self._members(start))
        return anew if self._surely_better(anew, further) else further

    def _ensemble(
        self, own: SlateArrays, seed: int, starts: Sequence[State | None]
    ) -> Fitted[Ensemble]:
        members = [
            self._fit(own, _seed_of(seed, number), start).evaluator
            for number, start in zip(_MEMBERS, starts)
        ]
        ensemble = Ensemble(members)
        least = self.settings.min_gain
        return Fitted(ensemble, report_of(ensemble, own, self.valid, least, self.device))

    def _members(self, start: State) -> list[State]:
        """The weights of each member of an ensemble's."""
        found = [
            {name.removeprefix(prefix): value for name, value in start.items() if prefix in name}
            for prefix in (f"members.{index}." for index in range(self.settings.labellers))
        ]
        if not all(found) or sum(map(len, found)) != len(start):
            raise _other_size()
        return found

    def _fit(self, own: SlateArrays, seed: int, start: State | None) -> Fitted[Evaluator]:
        try:
            found = fit_evaluator(own, self.valid, self.settings, seed, self.device, start=start)
        except RuntimeError as error:
            if start is None:
                raise
            raise _other_size() from error
        return Fitted(*found)

    def _surely_better(self, one: Fitted[Model], other: Fitted[Model]) -> bool:
        """Whether held-out lists are predicted better, one-sided at the 5 % level."""
        shown = self.valid.exposed >= 0
        losses = [held_out_losses(x.evaluator, self.valid, self.device) for x in (other, one)]
        saved = np.where(shown, losses[0] - losses[1], 0.0).sum(axis=1)
        return surely_positive(by_user(saved, self.valid.user))


def _other_size() -> ContractError:
    return ContractError(
        "the evaluators of the checkpoint that this starts from are of another size; keep "
        "post_train.pairs.evaluator's width, layers, heads, rates and labellers as they were"
    )


def save_two(file: Path, two: TwoEvaluators, identity: str) -> None:
    """Write both atomically; ``identity`` is a hash of all that they depend on."""
    state: dict[str, object] = {"identity": identity}
    reports = {"labeller": two.labeller.report, "judge": two.judge.report}
    for name, weights in two.weights.items():
        state[name] = {"weights": weights, "report": asdict(reports[name])}
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
        members = [Evaluator(spec, settings) for _ in range(settings.labellers)]
        return TwoEvaluators(
            labeller=_restore(Ensemble(members), state["labeller"], device),
            judge=_restore(Evaluator(spec, settings), state["judge"], device),
        )
    except (KeyError, TypeError, RuntimeError) as error:
        raise ContractError(
            f"{file}: does not hold two evaluators of these settings; remove it to fit them again"
        ) from error


def _restore(evaluator: Model, state: dict[str, Any], device: torch.device) -> Fitted[Model]:
    evaluator.load_state_dict(state["weights"])
    evaluator.to(device).eval().requires_grad_(False)
    return Fitted(evaluator, EvaluatorReport(**state["report"]))

"""What a refresh found; the stages' files, the report and the summary are made of it."""

from __future__ import annotations

from typing import Any, Literal

from contracts.reading import Strict
from contracts.releases import Gate
from training.data.facts import DataFacts
from training.evaluation.off_policy.estimate import OffPolicyEstimate
from training.refreshing.judging import Judged
from training.refreshing.latency import Latency
from training.refreshing.scope import Scope


class Training(Strict, kw_only=True, frozen=True):
    """How the candidate was trained; ``epochs`` is the run's history, epoch 0 the champion."""

    best_epoch: int
    best_score: float
    selection: str
    alarm: str
    examination: float | None
    epochs: tuple[dict[str, float | None], ...]

    @property
    def best(self) -> dict[str, float | None]:
        return self.epochs[self.best_epoch] if 0 <= self.best_epoch < len(self.epochs) else {}


class Drift(Strict, kw_only=True, frozen=True):
    """Mean KL divergence of the candidate from earlier policies, in nats a list.

    Attributes:
        anchor: name of the first release of the lineage; ``why`` if it could not be compared.
        lineage: the champion and its ancestors, the anchor last.
    """

    lineage: tuple[str, ...]
    anchor: str
    from_champion: float
    from_anchor: float | None
    why: str = ""


class Evaluation(Strict, kw_only=True, frozen=True):
    """Champion and candidate on the newest held-out slates; ``logged_value`` is U a shown list."""

    logged_value: float
    judged: Judged
    drift: Drift
    off_policy: tuple[OffPolicyEstimate, ...]


class Findings(Strict, kw_only=True, frozen=True):
    """All of it. What a refresh did not come to is None.

    Attributes:
        reference: facts of the slates that the champion was trained on.
        reason: why it was refused; "" where it was not.
    """

    identity: str
    champion: str
    scope: Scope
    table: str
    settings: dict[str, Any]
    facts: DataFacts | None
    reference: DataFacts | None
    dropped: dict[str, int]
    gates: tuple[Gate, ...] = ()
    reason: str = ""
    training: Training | None = None
    evaluation: Evaluation | None = None
    latency: Latency | None = None


class Summary(Strict, kw_only=True, frozen=True):
    """The last line that the command prints.

    Attributes:
        release: what was published, or stands already for this input; None where nothing does.
        versions: first and last version that was read, both included; None where nothing is new.
        promoted: whether ``release`` is the champion now.
        report: the folder of the report.
    """

    outcome: Literal["published", "refused", "unchanged", "dry-run"]
    release: str | None
    champion: str
    versions: tuple[int, int] | None
    slates: int
    gates: tuple[Gate, ...]
    report: str | None
    promoted: bool = False
    identity: str | None = None
    reason: str = ""


def versions_of(scope: Scope | None) -> tuple[int, int] | None:
    return None if scope is None else (scope.first, scope.last)


def failed(gates: tuple[Gate, ...]) -> str:
    """Why a refresh is refused, or "" if every gate passed."""
    return "; ".join(
        f"{gate.name} is {gate.value:.4g}, limit {gate.limit:.4g}: {gate.detail}"
        for gate in gates
        if not gate.passed
    )

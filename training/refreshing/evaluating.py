"""Everything that is measured of a candidate before its engines are made."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import torch

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from training.checkpoint import Checkpoint, load_checkpoint
from training.data.arrays import SlateArrays, load_slates
from training.evaluation.divergence import mean_divergence
from training.evaluation.off_policy.candidate import estimate_candidate
from training.evaluation.off_policy.estimate import OffPolicyEstimate
from training.model.gen_reranker import GenReranker
from training.pairs.evaluator import Evaluator
from training.pairs.examination import estimate_examination
from training.pairs.fit_evaluator import fit_evaluator
from training.pairs.two_evaluators import EVALUATORS_FILE, load_two
from training.refreshing.candidate import BEST
from training.refreshing.champion import Champion
from training.refreshing.findings import Drift, Evaluation
from training.refreshing.judging import Policies, judge_policies
from training.refreshing.settings import RefreshSettings
from training.release.store import ReleaseStore

#: Requests on which drift is measured; its error is small beside the limit.
DRIFT_REQUESTS = 512


def evaluate_candidate(
    store: ReleaseStore,
    champion: Champion,
    slates: Path,
    run: Path,
    spec: FeatureSpec,
    settings: RefreshSettings,
    device: torch.device,
) -> Evaluation:
    """Compare the candidate of a run with the champion on the test slates of a dataset."""
    train = load_slates(slates / "train", spec)
    test = load_slates(slates / "test", spec, like=train)
    candidate = load_checkpoint(run / BEST)
    policies = Policies(_model(champion.checkpoint, device), _model(candidate, device))
    judge, gain = find_judge(train, slates, run, settings, device)
    gates = settings.gates
    return Evaluation(
        logged_value=float(test.utility.sum(axis=1).mean()),
        judged=judge_policies(
            policies,
            test,
            judge,
            gain,
            estimate_examination(train),
            settings.mode,
            gates.resamples,
            gates.level,
        ),
        drift=measure_drift(store, champion, policies, test, settings.seed),
        off_policy=off_policy(champion.checkpoint, candidate, judge, test, settings),
    )


def _model(checkpoint: Checkpoint, device: torch.device) -> GenReranker:
    return checkpoint.model().to(device)


def find_judge(
    train: SlateArrays, slates: Path, run: Path, settings: RefreshSettings, device: torch.device
) -> tuple[Evaluator | None, float | None]:
    """The judge that chose the epoch; without policy pairs one is fitted for the gates alone.

    None where it predicts held-out feedback no better than the position alone: it cannot judge.
    """
    evaluator = settings.post_train.pairs.evaluator
    two = load_two(run / "post_train" / EVALUATORS_FILE, train.spec, evaluator, device)
    if two is not None:
        judge, report = two.judge.evaluator, two.judge.report
    else:
        valid = load_slates(slates / "valid", train.spec, like=train)
        judge, report = fit_evaluator(train, valid, evaluator, settings.seed, device)
    return (judge if report.accepted else None), report.gain


def measure_drift(
    store: ReleaseStore, champion: Champion, policies: Policies, test: SlateArrays, seed: int
) -> Drift:
    """How far the candidate is from the champion and from the anchor of their lineage."""
    ancestors = store.lineage(champion.name)
    anchor = ancestors[-1]
    some = test.take(torch.arange(min(len(test), DRIFT_REQUESTS)).numpy())
    device = next(policies.candidate.parameters()).device
    from_champion = mean_divergence(policies.candidate, policies.champion, some, seed)
    drift = Drift(
        lineage=tuple(one.name for one in ancestors),
        anchor=anchor.name,
        from_champion=from_champion,
        from_anchor=from_champion,
    )
    if anchor.name == champion.name:
        return drift
    try:
        if anchor.state != "present":
            raise ContractError(f"the anchor {anchor.name} is {anchor.state}")
        model = _model(load_checkpoint(store.checkpoint(anchor.name)), device)
    except ContractError as error:
        return msgspec.structs.replace(drift, from_anchor=None, why=str(error))
    divergence = mean_divergence(policies.candidate, model, some, seed)
    return msgspec.structs.replace(drift, from_anchor=divergence)


def off_policy(
    champion: Checkpoint,
    candidate: Checkpoint,
    judge: Evaluator | None,
    test: SlateArrays,
    settings: RefreshSettings,
) -> tuple[OffPolicyEstimate, ...]:
    """Off-policy estimates of both and of the difference, on the CPU.

    Both are taken at each slate's own temperature: so the champion is measured as it was logged,
    and the candidate as it would have explored in its place.
    """
    return tuple(
        estimate_candidate(
            champion.model(),
            candidate.model(),
            test,
            q_hat=None if judge is None else copy.deepcopy(judge).cpu(),
            settings=settings.off_policy,
        )
    )

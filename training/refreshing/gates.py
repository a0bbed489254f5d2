"""Gates on the candidate: what it must be like beside the champion before it may be served."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.releases import Gate
from training.evaluation.against_baseline import Comparison, Result
from training.evaluation.off_policy.estimate import OffPolicyEstimate
from training.refreshing.findings import Evaluation, Training
from training.refreshing.judging import CANDIDATE, CHAMPION, DIFFERENCE, VALUE
from training.refreshing.latency import Latency
from training.refreshing.settings import GateSettings


def training_gates(training: Training, settings: GateSettings) -> tuple[Gate, ...]:
    """Alarms of the run, an epoch that is better than the champion, pairs, and the chosen side."""
    gates = [
        Gate(
            name="train.alarms",
            passed=not training.alarm,
            value=float(bool(training.alarm)),
            limit=0.0,
            detail=training.alarm or "none",
        )
    ]
    if training.alarm:
        return tuple(gates)
    if settings.require_better:
        better = training.best_epoch > 0
        gates.append(
            Gate(
                name="train.better",
                passed=better,
                value=float(training.best_epoch),
                limit=1.0,
                detail=f"epoch {training.best_epoch} is chosen by the held-out {training.selection}"
                if better
                else f"no epoch has a better held-out {training.selection} than the champion",
            )
        )
    best = training.best
    if (pairs := best.get("pairs")) is not None:
        detail = "share of slates with a preference pair"
        gates.append(_least("train.pairs", pairs, settings.min_pairs, detail))
    if (fall := best.get("logps/chosen_fall")) is not None:
        detail = "nats a list that the chosen side lost against the champion"
        gates.append(_most("train.chosen_fall", fall, settings.max_chosen_fall, detail))
    return tuple(gates)


def evaluation_gates(evaluation: Evaluation, settings: GateSettings) -> tuple[Gate, ...]:
    """Value, ranking, off-policy, drift and duplicates on held-out slates."""
    judged, drift = evaluation.judged, evaluation.drift
    gates = [
        _most("duplicates", judged.duplicates, 0.0, "share of lists with an item twice"),
        *_value_gate(judged.comparison, settings),
        *_ranking_gates(judged.comparison, settings),
        *(
            _off_policy_gate(one, evaluation, settings)
            for one in evaluation.off_policy
            if one.policy == DIFFERENCE
        ),
    ]
    if drift.from_anchor is None:
        gates.append(_not_applicable("drift.anchor", settings.max_drift, drift.why))
    else:
        detail = f"nats a list from {drift.anchor}; {drift.from_champion:.2f} from the champion"
        gates.append(_most("drift.anchor", drift.from_anchor, settings.max_drift, detail))
    return tuple(gates)


def latency_gate(latency: Latency, settings: GateSettings) -> Gate:
    """Candidate's engines to the champion's."""
    if latency.why:
        return _not_applicable("latency", settings.max_latency_ratio, latency.why)
    detail = f"{latency.candidate_ms:.2f} ms, the champion {latency.champion_ms:.2f} ms"
    return _most("latency", latency.ratio, settings.max_latency_ratio, detail)


def _value_gate(comparison: Comparison, settings: GateSettings) -> Iterator[Gate]:
    found = _result(comparison, VALUE)
    if found is None:
        detail = "no judge is better than the position alone; the ranking metrics decide"
        yield _not_applicable("value", -settings.value_margin, detail)
        return
    champion, candidate = found
    base = abs(champion.value.estimate) or 1.0
    yield _relative("value", candidate, base, settings.value_margin, "by the judge")


def _ranking_gates(comparison: Comparison, settings: GateSettings) -> Iterator[Gate]:
    for metric, margin in settings.ranking.items():
        found = _result(comparison, metric)
        if found is None:
            detail = "not defined on these slates"
            yield _not_applicable(f"ranking.{metric}", 0.0 - margin, detail)
        else:
            yield _relative(f"ranking.{metric}", found[1], 1.0, margin, "")


def _relative(name: str, result: Result, base: float, margin: float, detail: str) -> Gate:
    """The lower end of a paired difference, over ``base``, must not be below minus the margin."""
    difference = result.difference
    assert difference is not None
    low = difference.low / base
    told = (
        f"{detail} {difference.estimate:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) "
        f"on {result.value.estimate:.4f}"
    ).strip()
    return Gate(name=name, passed=low >= -margin, value=low, limit=0.0 - margin, detail=told)


def _result(comparison: Comparison, metric: str) -> tuple[Result, Result] | None:
    try:
        both = comparison.get(metric, CHAMPION), comparison.get(metric, CANDIDATE)
    except KeyError:
        return None
    return None if both[1].difference is None else both


def _off_policy_gate(
    estimate: OffPolicyEstimate, evaluation: Evaluation, settings: GateSettings
) -> Gate:
    name = f"off_policy.{estimate.estimator}.{estimate.assumption}"
    margin = settings.off_policy_margin
    usable = estimate.usable and None not in (estimate.value, estimate.low, estimate.high)
    if not usable or estimate.low is None or estimate.high is None:
        return _not_applicable(name, -margin, f"not usable: {estimate.why}")
    base = evaluation.logged_value or 1.0
    low, high = estimate.low / base, estimate.high / base
    told = (
        f"{estimate.policy} {estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f}), "
        f"effective sample size {estimate.effective_sample_size:.0f} of {estimate.slates}"
    )
    if (high - low) / 2 > margin:
        # Too little was explored to prove that nothing is lost; what is seen to lose is refused.
        told = f"too wide to decide alone, refused only if all below 0: {told}"
        return Gate(name=name, passed=high >= 0, value=high, limit=0.0, detail=told)
    return Gate(name=name, passed=low >= -margin, value=low, limit=0.0 - margin, detail=told)


def _not_applicable(name: str, limit: float, why: str) -> Gate:
    return Gate(name=name, passed=True, value=0.0, limit=limit, detail=f"not applicable: {why}")


def _least(name: str, value: float, limit: float, detail: str) -> Gate:
    return Gate(name=name, passed=value >= limit, value=value, limit=limit, detail=detail)


def _most(name: str, value: float, limit: float, detail: str) -> Gate:
    return Gate(name=name, passed=value <= limit, value=value, limit=limit, detail=detail)

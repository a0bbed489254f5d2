"""Guardrails: has an arm worsened by more than it may?

Broken only with evidence that holds at any look: a one-sided confidence sequence for the worsening
lies above the limit. A relative limit is judged without a ratio, as R_T - (1 + limit) R_C above
zero, so that a metric that hardly ever happens (hides) can be guarded too. All guardrails of all
arms share alpha: a false alarm of any of them has a chance of at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from contracts.experiment_metrics import Guardrail, Metric
from contracts.experiments import Experiment
from deploy.analysis.collecting import Collected
from deploy.analysis.lifts import Pair, columns_of, pair_of
from deploy.analysis.prometheus import Latency
from deploy.analysis.ratio import contrast
from deploy.analysis.reading import FALLBACKS, LISTS
from deploy.analysis.sequences import MIN_UNITS, lower_distance
from deploy.analysis.status import GuardrailStatus

State = Literal["ok", "broken", "unknown"]

#: The share of requests that may be slower than the 99th percentile's limit.
TAIL = 0.01


def judge(
    experiment: Experiment,
    collected: Collected | None,
    kinds: tuple[str, ...],
    latency: Mapping[str, Latency | str],
) -> tuple[GuardrailStatus, ...]:
    """Every guardrail of every treatment.

    Args:
        latency: of each arm by name, or why there is none.
    """
    count = max(1, len(experiment.guardrails) * len(experiment.treatments))
    alpha = experiment.stopping.alpha / count
    judged = []
    for number, arm in enumerate(experiment.treatments, start=1):
        rows = collected.totals.counted() if collected is not None else None
        pair = pair_of(rows, number) if rows is not None else None
        for rail in experiment.guardrails:
            if rail.metric == "latency_p99_ms":
                judged.append(
                    judge_latency(rail, arm.name, latency.get(arm.name, "unknown"), alpha)
                )
            elif pair is None:
                judged.append(_status(rail, arm.name, None, None, "unknown", "no lists yet"))
            else:
                judged.append(judge_feedback(rail, arm.name, pair, kinds, experiment, alpha))
    return tuple(judged)


def judge_feedback(
    rail: Guardrail,
    arm: str,
    pair: Pair,
    kinds: tuple[str, ...],
    experiment: Experiment,
    alpha: float,
) -> GuardrailStatus:
    """A guardrail on the fallback share or on a metric of feedback."""
    relative = isinstance(rail.metric, Metric)
    top, bottom = (
        columns_of(rail.metric, kinds) if isinstance(rail.metric, Metric) else (FALLBACKS, LISTS)
    )
    sums, sizes = pair.rows.sums[:, top], pair.rows.sums[:, bottom]
    sign = 1.0 if rail.better == "lower" else -1.0
    factor = 1 + sign * rail.limit if relative else 1.0
    excess = contrast(pair.arms, sums, sizes, factor)
    if excess is None or min(excess.units) < MIN_UNITS:
        units = (0, 0) if excess is None else excess.units
        why = f"{min(units)} units in the smaller arm; {MIN_UNITS} are needed"
        return _status(rail, arm, None, None, "unknown", why)
    control, treated = excess.means
    if relative and control < 0:
        why = f"the control's mean is {control:.4g}, so a relative limit has no meaning"
        return _status(rail, arm, None, None, "unknown", why)
    pooled = float(sums.sum() / sizes.sum())
    scale = max(rail.limit, experiment.stopping.mde)
    tau = scale * abs(pooled) if relative else max(scale, TAIL)
    over = sign * excess.value - (0.0 if relative else rail.limit)
    # Where all units of an arm are alike (every list a fallback: its release is dead) there seems
    # to be no variance. The least is what one unit more in each arm would make that differs.
    least = excess.value**2 * sum(1 / (units * (units + 2)) for units in excess.units)
    distance = lower_distance(max(excess.variance, least), tau, alpha) if tau > 0 else 0.0
    unit = control if relative and control > 0 else 1.0  # of the value that is shown
    offset = rail.limit if not relative or control > 0 else 0.0
    value = sign * (treated - control) / unit
    bound = offset + (over - distance) / unit
    broken = tau > 0 and over - distance > 0
    means = f"{treated:.4g} against {control:.4g} in the control"
    if broken:
        return _status(rail, arm, value, bound, "broken", f"{means}: worse by more than allowed")
    return _status(rail, arm, value, bound, "ok", f"{means}: not shown to be over the limit")


def judge_latency(
    rail: Guardrail, arm: str, latency: Latency | str, alpha: float
) -> GuardrailStatus:
    """A guardrail on the 99th percentile: is the share of slower requests above one per cent?"""
    if isinstance(latency, str):
        return _status(rail, arm, None, None, "unknown", latency)
    if latency.requests < MIN_UNITS:
        why = f"{latency.requests:.0f} requests; {MIN_UNITS} are needed"
        return _status(rail, arm, None, None, "unknown", why)
    value, edge = latency.quantile_ms(1 - TAIL), latency.edge_ms(rail.limit)
    if not math.isfinite(edge):
        why = f"the histogram ends below the limit of {rail.limit:g} ms; widen its buckets"
        return _status(rail, arm, value, None, "unknown", why)
    slow = latency.share_above(edge)
    variance = max(slow, TAIL) * (1 - slow) / latency.requests
    least = slow - lower_distance(variance, TAIL, alpha)
    state: State = "broken" if least > TAIL else "ok"
    why = f"{slow:.2%} of {latency.requests:.0f} requests took longer than {edge:g} ms"
    return GuardrailStatus(
        metric=rail.name, arm=arm, value=value, bound=None, limit=rail.limit, state=state, why=why
    )  # fmt: skip


def _status(
    rail: Guardrail,
    arm: str,
    value: float | None,
    bound: float | None,
    state: State,
    why: str,
) -> GuardrailStatus:
    return GuardrailStatus(
        metric=rail.name,
        arm=arm,
        value=value,
        bound=bound,
        limit=rail.limit,
        state=state,
        why=why,
    )

"""``read_status``: from a manifest and the feedback table to all that is known of an experiment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from contracts.experiments import Experiment
from deploy.analysis import guardrails as rails
from deploy.analysis.collecting import DAY_MS, Collected, collect, look_step
from deploy.analysis.fixed import mean_interval
from deploy.analysis.lifts import LiftTracker, columns_of
from deploy.analysis.lineage import champion_of, lineage_of, release_of
from deploy.analysis.prometheus import Latency, PrometheusError, arm_latency
from deploy.analysis.ratio import ratio_mean
from deploy.analysis.reading import FALLBACKS, LISTS, ExperimentTable, metrics_of
from deploy.analysis.segments import segment_effects
from deploy.analysis.srm import check_ratio, unit_counts
from deploy.analysis.stages import SETTLE_MS, stages_of, to_ms, weights_of
from deploy.analysis.status import ArmMetric, ArmStatus, ExperimentStatus, LeftOut, Srm, Stage
from deploy.analysis.verdict import decide

#: A list may be so much later than now: clocks of machines differ a little.
TOLERANCE_MS = 60_000


def read_status(
    experiment: Experiment,
    table: str,
    *,
    now: int | None = None,
    stages: Sequence[Stage] | None = None,
    prometheus: str | None = None,
    releases: Path | None = None,
    segment: str | None = "surface",
    history_days: float = 14.0,
    settle_ms: int = SETTLE_MS,
    storage_options: Mapping[str, str] | None = None,
) -> ExperimentStatus:
    """Read the table and judge the experiment.

    Args:
        table: folder or s3:// address of the feedback table.
        now: ms since the epoch; lists after it (and a minute) are from a wrong clock.
        stages: the history of weights since the start, oldest first. Without it today's weights
            are taken to have held all the time, which is wrong after a ramp: units that it moved
            then count as crossed, and the sample ratio is judged against the wrong weights.
        prometheus: address of its HTTP API, for latency; without it such guardrails are unknown.
        releases: folder of releases, for the lineage and the champion's name.
        segment: "surface", or a categorical user feature by name; None for no segments.
        settle_ms: how long clients may take to follow a change of weights.
        history_days: how far back the units' past is read for CUPED; 0 for no CUPED.

    Raises:
        ContractError: the table or the stages do not fit the experiment; the message says how.
    """
    now = round(time.time() * 1000) if now is None else now
    known = stages_of(experiment, stages)
    source = ExperimentTable(table, experiment, segment, storage_options)
    tracker = LiftTracker(experiment, source.kinds)
    collected: Collected | None = None
    end, future = now + TOLERANCE_MS, 0
    if known and known[0].since < end:
        future = source.future(end)
        collected = collect(
            source,
            known,
            len(experiment.arms),
            end=end,
            history_ms=round(history_days * DAY_MS),
            step=look_step(known[0].since, end, source.rows),
            segmented=segment is not None,
            settle_ms=settle_ms,
            look=tracker.look,
        )
    champion = champion_of(releases)
    latency = _latency(experiment, prometheus, known, now)
    arms = _arms(experiment, source.kinds, collected, latency, champion)
    lifts = tracker.lifts()
    judged = rails.judge(experiment, collected, source.kinds, latency)
    srm = _srm(experiment, collected, known)
    left_out = _left_out(collected, future)
    started = None if experiment.started is None else to_ms(experiment.started)
    verdict = decide(
        experiment,
        arms=arms,
        lifts=lifts,
        srm=srm,
        guardrails=judged,
        left_out=left_out,
        started=started,
        now=now,
    )
    return ExperimentStatus(
        name=experiment.name,
        description=experiment.description,
        state=experiment.state,
        unit=experiment.unit,
        primary=experiment.primary.name,
        alpha=experiment.stopping.alpha,
        started=started,
        now=now,
        first=None if collected is None else collected.first,
        last=None if collected is None else collected.last,
        table=table,
        table_version=source.version,
        stages=known,
        arms=arms,
        lifts=lifts,
        srm=srm,
        left_out=left_out,
        guardrails=judged,
        segments=(
            segment_effects(
                experiment, source.kinds, segment, collected.parts, collected.totals.crossed
            )
            if collected is not None and segment is not None
            else ()
        ),
        verdict=verdict.verdict,
        winner=verdict.winner,
        words=verdict.words,
        lineage=lineage_of(experiment, releases, champion) if releases is not None else (),
    )


def _arms(
    experiment: Experiment,
    kinds: tuple[str, ...],
    collected: Collected | None,
    latency: Mapping[str, Latency | str],
    champion: str | None,
) -> tuple[ArmStatus, ...]:
    columns = 3 + len(kinds)
    rows = collected.totals.counted() if collected is not None else None
    shown = []
    for number, arm in enumerate(experiment.arms):
        own = rows.at(rows.arm == number) if rows is not None else None
        units, unit = (
            np.unique(own.unit, return_inverse=True)
            if own is not None
            else (np.empty(0, np.int64), np.empty(0, np.int64))
        )
        sums = np.zeros((len(units), columns))
        if own is not None:
            np.add.at(sums, unit.reshape(-1), own.sums)
        lists = float(sums[:, LISTS].sum())
        metrics = []
        for metric in metrics_of(experiment).values():
            top, bottom = columns_of(metric, kinds)
            mean = ratio_mean(sums[:, top], sums[:, bottom])
            low, high = mean_interval(mean, experiment.stopping.alpha) or (None, None)
            value = mean.value if np.isfinite(mean.value) else None
            metrics.append(ArmMetric(metric=metric.name, mean=value, low=low, high=high))
        timed = latency.get(arm.name)
        shown.append(
            ArmStatus(
                name=arm.name,
                release=release_of(arm.release, champion),
                weight=arm.weight,
                is_control=number == 0,
                units=len(units),
                lists=int(lists),
                fallback_share=float(sums[:, FALLBACKS].sum()) / lists if lists else None,
                latency_p99_ms=timed.quantile_ms(0.99) if isinstance(timed, Latency) else None,
                metrics=tuple(metrics),
            )
        )
    return tuple(shown)


def _latency(
    experiment: Experiment, prometheus: str | None, stages: Sequence[Stage], now: int
) -> dict[str, Latency | str]:
    found: dict[str, Latency | str] = {}
    for arm in experiment.arms:
        if prometheus is None:
            found[arm.name] = "latency comes from Prometheus; give --prometheus"
        elif not stages:
            found[arm.name] = "the experiment has not started"
        else:
            try:
                found[arm.name] = arm_latency(
                    prometheus, experiment.name, arm.name, start=stages[0].since, end=now
                )
            except PrometheusError as error:
                found[arm.name] = str(error)
    return found


def _srm(experiment: Experiment, collected: Collected | None, stages: Sequence[Stage]) -> Srm:
    names = [arm.name for arm in experiment.arms]
    if collected is None:
        none: dict[str, int] = dict.fromkeys(names, 0)
        expected = dict.fromkeys(names, 0.0)
        return Srm(chi2=None, degrees=0, p=None, ok=None, observed=none, expected=expected,
                   why="no lists yet")  # fmt: skip
    totals = collected.totals
    counts = unit_counts(totals.first_stage, totals.first_arm, totals.stages, totals.arms)
    return check_ratio(counts, weights_of(stages, names), names)


def _left_out(collected: Collected | None, future: int) -> LeftOut:
    if collected is None:
        return LeftOut(future=future)
    totals = collected.totals
    crossed, seen = int(totals.crossed.sum()), int((totals.first_arm >= 0).sum())
    lists = totals.rows.sums[totals.crossed[totals.rows.unit], LISTS] if crossed else np.zeros(0)
    return LeftOut(
        crossed_units=crossed,
        crossed_share=crossed / seen if seen else 0.0,
        crossed_lists=int(lists.sum()),
        before=collected.before,
        future=future,
        settling=collected.settling,
        unknown_arm=collected.unknown,
        bad_values=collected.bad_values,
    )

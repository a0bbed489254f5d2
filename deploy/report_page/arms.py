"""The arms as they are: releases, weights, and the mean of each metric."""

from __future__ import annotations

from deploy.analysis.status import ArmMetric, ArmStatus, ExperimentStatus
from deploy.report_page.markup import Html, joined, tag
from deploy.report_page.numbers import UNKNOWN, count, number, share
from deploy.report_page.tables import chip, section, table


def arms(status: ExperimentStatus) -> Html:
    """One row for each arm, the control first."""
    names = list(dict.fromkeys(metric.metric for arm in status.arms for metric in arm.metrics))
    return section(
        "Arms",
        "arms",
        table(
            f"Means with their {share(1 - status.alpha)} intervals, each by itself",
            ("Arm", "Release", ">Weight", ">Units", ">Lists")
            + tuple(f">{name}" for name in names)
            + (">Fallbacks", ">Latency p99"),
            (_row(arm, names) for arm in status.arms),
        ),
    )


def _row(arm: ArmStatus, names: list[str]) -> list[Html | str]:
    own = {metric.metric: metric for metric in arm.metrics}
    latency = arm.latency_p99_ms
    return [
        joined(arm.name, " ", chip("control")) if arm.is_control else arm.name,
        arm.release,
        share(arm.weight),
        count(arm.units),
        count(arm.lists),
        *(_mean(own.get(name)) for name in names),
        share(arm.fallback_share),
        UNKNOWN if latency is None else f"{number(latency, 3)} ms",
    ]


def _mean(metric: ArmMetric | None) -> Html | str:
    if metric is None or metric.mean is None:
        return UNKNOWN
    if metric.low is None or metric.high is None:
        return number(metric.mean)
    bounds = f"{number(metric.low)} to {number(metric.high)}"
    return joined(number(metric.mean), tag("span", bounds, class_="small"))

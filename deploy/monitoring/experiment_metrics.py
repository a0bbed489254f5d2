"""What an experiment's status says, as metrics: ``gref_experiment_*`` in a textfile.

``rollout.py status`` and ``watch`` are commands and not servers, so they leave a file for
node_exporter's textfile collector, one for each experiment (docs/monitoring.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from contracts.reading import ContractError
from deploy.analysis.status import Effect, ExperimentStatus, Lift, Verdict

_RUNNING = "1 while the experiment runs."
STATES = ("ok", "broken", "unknown")


def write_experiment_metrics(path: Path, status: ExperimentStatus) -> None:
    """Replace ``path`` (``DIR/NAME.prom``) by the metrics of a status, in one rename.

    What the status cannot say (null) has no series, never a NaN.

    Raises:
        ContractError: the path is not one that the collector reads.
        OSError: it cannot be written.
    """
    _write(path, experiment_registry(status))


def write_stopped(path: Path, experiment: str) -> None:
    """Replace ``path`` by the one thing that is left to say: it is over. Alerts on it end so.

    Raises:
        ContractError, OSError: as ``write_experiment_metrics``.
    """
    made = _Gauges(experiment)
    made.set("running", _RUNNING, False)
    _write(path, made.registry)


def _write(path: Path, registry: CollectorRegistry) -> None:
    if path.suffix != ".prom":
        raise ContractError(f"{path}: the collector reads *.prom alone")
    if not path.parent.is_dir():
        raise ContractError(f"{path}: no such folder as {path.parent}")
    write_to_textfile(str(path), registry)


def experiment_registry(status: ExperimentStatus) -> CollectorRegistry:
    """The metrics of one experiment; all carry the label ``experiment``."""
    made = _Gauges(status.name)
    made.set("running", _RUNNING, status.state == "running")
    made.set("checked_timestamp_seconds", "When the status was made.", status.now / 1000)
    for arm in status.arms:
        labels = {"arm": arm.name, "release": arm.release}
        made.set("arm_weight", "Share of units that the arm is to get.", arm.weight, **labels)
        made.set("arm_units", "Units counted.", arm.units, **labels)
        made.set("arm_lists", "Lists counted.", arm.lists, **labels)
        for metric in arm.metrics:
            made.set(
                "metric_mean",
                "Feedback by list or item shown.",
                metric.mean,
                arm=arm.name,
                metric=metric.metric,
            )
    for lift in status.lifts:
        _set_lift(made, lift)
    made.set("srm_p", "p of the sample-ratio test.", status.srm.p)
    made.set("srm_mismatch", "1 where arms did not get their units.", status.srm.ok is False)
    made.set("crossed_share", "Units seen in two arms, of all.", status.left_out.crossed_share)
    for guardrail in status.guardrails:
        labels = {"arm": guardrail.arm, "guardrail": guardrail.metric}
        made.set("guardrail_worsening", "Worsening against the control.", guardrail.value, **labels)
        made.set("guardrail_limit", "Worsening allowed.", guardrail.limit, **labels)
        for state in STATES:
            made.set(
                "guardrail", "1 for its state.", guardrail.state == state, **labels, state=state
            )
    for verdict in get_args(Verdict):
        made.set("verdict", "1 for the verdict.", status.verdict == verdict, verdict=verdict)
    return made.registry


class _Gauges:
    """Gauges of one experiment, made when first set."""

    def __init__(self, experiment: str) -> None:
        self.registry = CollectorRegistry()
        self._experiment = experiment
        self._gauges: dict[str, Gauge] = {}

    def set(self, name: str, text: str, value: float | None, **labels: str) -> None:
        """Set a series, unless there is no value."""
        if value is None:
            return
        if name not in self._gauges:
            names = ("experiment", *labels)
            self._gauges[name] = Gauge(
                f"gref_experiment_{name}", text, names, registry=self.registry
            )
        self._gauges[name].labels(experiment=self._experiment, **labels).set(value)


def _set_lift(made: _Gauges, lift: Lift) -> None:
    scales: dict[str, Effect | None] = {"relative": lift.relative, "absolute": lift.absolute}
    for scale, effect in scales.items():
        if effect is None:
            continue
        labels = {"arm": lift.arm, "metric": lift.metric, "scale": scale}
        made.set("lift", "Arm against control.", effect.estimate, **labels)
        made.set("lift_low", "Its always-valid lower bound.", effect.always_low, **labels)
        made.set("lift_high", "Its always-valid upper bound.", effect.always_high, **labels)

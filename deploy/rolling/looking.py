"""The commands that look: status and watch."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import msgspec
import typer
from rich.console import Console

from contracts.reading import ContractError
from deploy.analysis.status import ExperimentStatus
from deploy.rolling import options as given
from deploy.rolling import plans, views
from deploy.rolling.history import read_stages
from deploy.rolling.options import complain, console, errors, exit_codes, opened, places_of
from deploy.rolling.rollouts import Rollout
from deploy.rolling.serving_state import read_serving_state
from deploy.rolling.situation import Places, experiment_named, only_treatment
from deploy.rolling.watching import DwellClock, Ramp, RollBack, Wait, decide, seconds, weights
from training.command import REFUSED, Refused
from training.release.release_names import PublishError

Table = Annotated[Optional[str], typer.Option(help="Feedback table: a folder or an s3:// address.")]
Prometheus = Annotated[
    Optional[str], typer.Option(help="Address of Prometheus, for latency by arm.")
]
Segment = Annotated[str, typer.Option(help='"surface" or a categorical user feature.')]
Settle = Annotated[
    str,
    typer.Option(help="How long clients may take to follow a ramp; lists of that time count not."),
]
Html = Annotated[Optional[Path], typer.Option(help="Write the report as a page.")]
Metrics = Annotated[
    Optional[Path],
    typer.Option(help="Write the figures for node_exporter's textfile collector (*.prom)."),
]


def status(
    name: Annotated[Optional[str], typer.Argument(help="An experiment.", metavar="[NAME]")] = None,
    table: Table = None,
    html: Html = None,
    metrics: Metrics = None,
    prometheus: Prometheus = None,
    segment: Segment = "surface",
    settle: Settle = "1m",
    experiments: given.Experiments = given.EXPERIMENTS,
    releases: given.Releases = given.DEFAULT_RELEASES,
    routing: given.Routing = given.ROUTING,
    replica: given.Replicas = None,
    home: given.Home = given.DEFAULT_STACK,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Exit 3 where routing, record, manifests and replicas disagree."
        ),
    ] = False,
    as_json: given.Json = False,
) -> None:
    """Print what is served and whether all replicas serve it; with NAME what an experiment shows.

    What an experiment shows is read from the feedback table.
    """
    with exit_codes():
        if name is None and (table or html or metrics):
            raise ContractError("--table, --html and --metrics are for an experiment; give NAME")
        if name is not None and table is None:
            raise ContractError(f"give --table, the feedback table that {name} is read from")
        places = places_of(experiments, releases, routing)
        with opened(places, replica, None, home, optional=True) as rollout:
            serving = read_serving_state(places, rollout.fleet)
        shown = None
        if name is not None and table is not None:
            shown = _read_status(places, name, table, prometheus, segment, settle)
            _write_reports(shown, html, metrics)
        if as_json:
            _print_json({"serving": serving, "experiment": shown})
        else:
            wide = Console(width=max(console.width, 160))
            wide.print(views.serving_view(serving))
            if shown is not None:
                wide.print(views.experiment_view(shown))
        if check and serving.problems:
            raise typer.Exit(REFUSED)


def watch(
    name: given.Name,
    table: Annotated[str, typer.Option(help="Feedback table: a folder or an s3:// address.")],
    every: Annotated[str, typer.Option(help="Between two looks: 60s, 5m, 1h.")] = "60s",
    once: Annotated[bool, typer.Option("--once", help="Look once and end, for cron.")] = False,
    steps: Annotated[
        Optional[str], typer.Option(help="Ramp the arm by these weights: 0.01,0.05,0.25.")
    ] = None,
    dwell: Annotated[str, typer.Option(help="Least time at each weight: 30m, 1d.")] = "1d",
    arm: given.Arm = None,
    html: Html = None,
    metrics: Metrics = None,
    prometheus: Prometheus = None,
    settle: Settle = "1m",
    experiments: given.Experiments = given.EXPERIMENTS,
    releases: given.Releases = given.DEFAULT_RELEASES,
    routing: given.Routing = given.ROUTING,
    replica: given.Replicas = None,
    repository: given.Repositories = None,
    home: given.Home = given.DEFAULT_STACK,
    drain: given.Drain = 5.0,
    keep: given.Keep = 1,
) -> None:
    """Look at an experiment again and again; roll it back by itself where it does harm.

    It rolls back, and ends with exit code 3, where a guardrail is broken or the primary metric is
    shown to be worse. With --steps it ramps, where nothing speaks against it. It never promotes.
    """
    with exit_codes():
        places = places_of(experiments, releases, routing)
        interval, least = seconds(every), seconds(dwell)
        plan = weights(steps) if steps else ()
        chosen = (arm or only_treatment(places, name)) if plan else None
        replicas = partial(opened, places, replica, repository, home, optional=True)
        first = True
        while True:
            try:
                if experiment_named(places, name).state != "running":
                    given.say(f"experiment {name} does not run; nothing to watch")
                    _tell_stopped(metrics, name)
                    return
                shown = _read_status(places, name, table, prometheus, "surface", settle)
                with replicas(drain=drain, keep=keep) as rollout:
                    is_over = _act(rollout, shown, chosen, plan, least)
                # After it, for a full disk must not hold a rollback up.
                _write_reports(shown, html, metrics, must=first and not is_over)
            except Exception as error:  # a store that is away for a while must not end the guard
                if first or once:
                    raise
                complain("warning", f"not looked at: {error}")
            else:
                if is_over:
                    _tell_stopped(metrics, name)
                    raise typer.Exit(REFUSED)
            if once:
                return
            first = False
            time.sleep(interval)


def _act(
    rollout: Rollout,
    shown: ExperimentStatus,
    arm: str | None,
    steps: tuple[float, ...],
    least: float,
) -> bool:
    """Do what a status asks for; whether the experiment was rolled back.

    A ramp that is refused is said, and tried again at the next look.
    """
    dwelt = 0.0
    if arm is not None:
        weight = next(one.weight for one in shown.arms if one.name == arm)
        dwelt = DwellClock(rollout.places.routing).dwelt_s(f"{shown.name}/{arm}", weight)
    action = decide(shown, arm, steps, dwelt, least)
    at = _now().isoformat(timespec="seconds")
    if isinstance(action, RollBack):
        complain(f"{at} rolling {shown.name} back", action.why)
        rollout.stop(shown.name, action.why)
        return True
    if isinstance(action, Wait):
        given.say(f"{at} {action.why}")
    elif isinstance(action, Ramp) and arm is not None:
        given.say(f"{at} ramping {arm} to {action.to:g}")
        try:
            rollout.run(partial(plans.plan_ramp, name=shown.name, arm=arm, to=action.to, at=_now()))
        except (Refused, ContractError, PublishError) as error:
            complain("warning", f"not ramped: {error}")
    return False


def _read_status(
    places: Places, name: str, table: str, prometheus: str | None, segment: str, settle: str
) -> ExperimentStatus:
    from deploy.analysis.experiment_status import read_status  # it brings deltalake along

    return read_status(
        experiment_named(places, name),
        table,
        stages=read_stages(places.experiments, name),
        prometheus=prometheus,
        releases=places.store.folder,
        segment=segment,
        settle_ms=round(seconds(settle) * 1000),
    )


def _write_reports(
    shown: ExperimentStatus, html: Path | None, metrics: Path | None, must: bool = True
) -> None:
    """Write page and metrics; what fails is an error where they ``must`` be written."""
    try:
        if html is not None:
            from deploy.report_page.page import write_page

            write_page(shown, html)
            errors.print(f"report: {html}", markup=False, highlight=False, soft_wrap=True)
        if metrics is not None:
            from deploy.monitoring.experiment_metrics import write_experiment_metrics

            write_experiment_metrics(metrics, shown)
    except (ContractError, OSError) as error:
        if must:
            raise
        complain("warning", f"no report: {error}")


def _tell_stopped(metrics: Path | None, name: str) -> None:
    if metrics is not None:
        from deploy.monitoring.experiment_metrics import write_stopped

        write_stopped(metrics, name)


def _print_json(plain: Any) -> None:
    text = json.dumps(msgspec.to_builtins(plain), indent=2, ensure_ascii=False)
    sys.stdout.write(text + "\n")


def _now() -> datetime:
    return datetime.now(timezone.utc)

"""Roll releases out: experiments start, ramp and end, a champion is promoted or taken back.

Everything follows the manifests (deploy/experiments/*.yaml), the folder of releases and one file
that clients read, routing.json. A release answers on every replica before clients are sent to it,
and is unloaded after they were sent elsewhere; a rollback switches first. What was killed is
finished by the next command.
"""

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

from contracts.experiments import Experiment, read_experiment
from contracts.reading import ContractError
from deploy.rolling import options as given
from deploy.rolling import plans, views
from deploy.rolling.changes import Change
from deploy.rolling.history import read_stages
from deploy.rolling.kubernetes import outdated, rendered, write_rendered
from deploy.rolling.options import complain, console, exit_codes, opened, places_of
from deploy.rolling.preview import preview
from deploy.rolling.rollouts import Plan, Rollout
from deploy.rolling.serving_state import read_serving_state
from deploy.rolling.situation import Places, look, look_in_a_hurry
from deploy.rolling.watching import DwellClock, Ramp, RollBack, Wait, decide, seconds, weights
from training.command import REFUSED

EXAMPLES = """
Examples:

  python deploy/rollout.py promote r0001                       the first release of all

  python deploy/rollout.py start refreshed --dry-run

  python deploy/rollout.py start refreshed --replica triton-headless.gref:8001

  python deploy/rollout.py ramp refreshed --to 0.25

  python deploy/rollout.py status refreshed --table feedback --html report.html

  python deploy/rollout.py watch refreshed --table feedback --steps 0.05,0.25,0.5 --dwell 1d

  python deploy/rollout.py promote refreshed --reason "more clicks, no more hides"

  python deploy/rollout.py rollback refreshed                  end an experiment

  python deploy/rollout.py rollback                            the champion before this one

  python deploy/rollout.py render --kubernetes deploy/kubernetes/base/experiments

Exit codes: 0 done, 2 bad input, 3 refused by a check, or rolled back by a watch.
"""

Name = Annotated[str, typer.Argument(help="An experiment.", metavar="NAME")]
Arm = Annotated[
    Optional[str], typer.Option(help="The arm.", show_default="the treatment, if there is one")
]
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

app = typer.Typer(
    help=__doc__, epilog=EXAMPLES, add_completion=False, no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def start(
    name: Name,
    experiments: given.Experiments = given.EXPERIMENTS,
    releases: given.Releases = given.DEFAULT_RELEASES,
    routing: given.Routing = given.ROUTING,
    replica: given.Replicas = None,
    repository: given.Repositories = None,
    home: given.Home = given.DEFAULT_STACK,
    drain: given.Drain = 5.0,
    keep: given.Keep = 1,
    wait: given.WaitFor = 60.0,
    dry_run: given.DryRun = False,
) -> None:
    """Start an experiment: its releases are loaded everywhere, then clients are sent there.

    One that runs and whose manifest was edited comes into force as it stands there.
    """
    with exit_codes():
        places = places_of(experiments, releases, routing)
        plan = partial(plans.plan_start, name=name, at=_now())
        with opened(
            places, replica, repository, home, drain=drain, keep=keep, wait=wait
        ) as rollout:
            _run(rollout, plan, dry_run)


@app.command()
def ramp(
    name: Name,
    to: Annotated[float, typer.Option(help="The arm's weight: 0.25; the control gets the rest.")],
    arm: Arm = None,
    experiments: given.Experiments = given.EXPERIMENTS,
    releases: given.Releases = given.DEFAULT_RELEASES,
    routing: given.Routing = given.ROUTING,
    replica: given.Replicas = None,
    repository: given.Repositories = None,
    home: given.Home = given.DEFAULT_STACK,
    drain: given.Drain = 5.0,
    keep: given.Keep = 1,
    wait: given.WaitFor = 60.0,
    dry_run: given.DryRun = False,
) -> None:
    """Give an arm another weight. Units move between it and the control, and no other way."""
    with exit_codes():
        places = places_of(experiments, releases, routing)
        chosen = arm or _only_treatment(places, name)
        plan = partial(plans.plan_ramp, name=name, arm=chosen, to=to, at=_now())
        with opened(
            places, replica, repository, home, drain=drain, keep=keep, wait=wait
        ) as rollout:
            _run(rollout, plan, dry_run)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="An experiment, or a release.", metavar="NAME")],
    arm: Arm = None,
    reason: given.Reason = "",
    experiments: given.Experiments = given.EXPERIMENTS,
    releases: given.Releases = given.DEFAULT_RELEASES,
    routing: given.Routing = given.ROUTING,
    replica: given.Replicas = None,
    repository: given.Repositories = None,
    home: given.Home = given.DEFAULT_STACK,
    drain: given.Drain = 5.0,
    keep: given.Keep = 1,
    wait: given.WaitFor = 60.0,
    dry_run: given.DryRun = False,
) -> None:
    """Make an arm's release the champion and end its experiment; or a release without one."""
    with exit_codes():
        places = places_of(experiments, releases, routing)
        plan: Plan
        if plans.is_release(name):
            plan = partial(plans.plan_champion, release=name, reason=reason)
        else:
            chosen = arm or _only_treatment(places, name)
            plan = partial(plans.plan_promote, name=name, arm=chosen, reason=reason)
        with opened(
            places, replica, repository, home, drain=drain, keep=keep, wait=wait
        ) as rollout:
            _run(rollout, plan, dry_run)


@app.command()
def rollback(
    name: Annotated[
        Optional[str],
        typer.Argument(help="An experiment; without it the champion.", metavar="[NAME]"),
    ] = None,
    to: Annotated[
        Optional[str], typer.Option(help="The champion to go back to.", show_default="the last")
    ] = None,
    reason: given.Reason = "",
    experiments: given.Experiments = given.EXPERIMENTS,
    releases: given.Releases = given.DEFAULT_RELEASES,
    routing: given.Routing = given.ROUTING,
    replica: given.Replicas = None,
    home: given.Home = given.DEFAULT_STACK,
    drain: given.Drain = 5.0,
    keep: given.Keep = 1,
    dry_run: given.DryRun = False,
) -> None:
    """End an experiment, its units go to the champion; or take the earlier champion back.

    Clients are switched first, and are not kept waiting by another rollout. Without NAME, once more
    goes further back, never forth.
    """
    with exit_codes():
        if name is not None and to is not None:
            raise ContractError("--to is for the champion; leave it out, or NAME")
        places = places_of(experiments, releases, routing)
        with opened(places, replica, None, home, optional=True, drain=drain, keep=keep) as rollout:
            if dry_run:
                _preview_rollback(rollout, name, to, reason)
            elif name is not None:
                rollout.stop(name)
            else:
                rollout.back(to, reason)


@app.command()
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


@app.command()
def watch(
    name: Name,
    table: Annotated[str, typer.Option(help="Feedback table: a folder or an s3:// address.")],
    every: Annotated[str, typer.Option(help="Between two looks: 60s, 5m, 1h.")] = "60s",
    once: Annotated[bool, typer.Option("--once", help="Look once and end, for cron.")] = False,
    steps: Annotated[
        Optional[str], typer.Option(help="Ramp the arm by these weights: 0.01,0.05,0.25.")
    ] = None,
    dwell: Annotated[str, typer.Option(help="Least time at each weight: 30m, 1d.")] = "1d",
    arm: Arm = None,
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
        chosen = (arm or _only_treatment(places, name)) if plan else None
        first = True
        while True:
            with opened(
                places, replica, repository, home, optional=True, drain=drain, keep=keep
            ) as rollout:
                try:
                    if _experiment(places, name).state != "running":
                        given.say(f"experiment {name} does not run; nothing to watch")
                        _tell_stopped(metrics, name)
                        return
                    shown = _read_status(places, name, table, prometheus, "surface", settle)
                    _write_reports(shown, html, metrics)
                    try:
                        _act(rollout, shown, chosen, plan, least)
                    except typer.Exit:  # it was rolled back: alerts on it are over
                        _tell_stopped(metrics, name)
                        raise
                except (ContractError, OSError) as error:
                    if first or once:
                        raise
                    complain("warning", f"not looked at: {error}")
            if once:
                return
            first = False
            time.sleep(interval)


@app.command()
def render(
    kubernetes: Annotated[
        Path, typer.Option(help="Folder of the files: deploy/kubernetes/base/experiments.")
    ],
    experiments: given.Experiments = given.EXPERIMENTS,
    releases: given.Releases = given.DEFAULT_RELEASES,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 3 where a file is outdated.")
    ] = False,
    dry_run: given.DryRun = False,
) -> None:
    """Write what Kubernetes is given, from manifests and champion alone: commit the result.

    The same manifests and champion give the same bytes.
    """
    with exit_codes():
        places = places_of(experiments, releases, Path())
        files = rendered(places)
        if check or dry_run:
            found = outdated(kubernetes, files)
            given.say(f"outdated in {kubernetes}: {', '.join(found)}" if found else "up to date")
            if check and found:
                raise typer.Exit(REFUSED)
            return
        changed = write_rendered(kubernetes, files)
        told = f"wrote {', '.join(changed)} in {kubernetes}" if changed else "up to date"
        given.say(told)


def _run(rollout: Rollout, plan: Plan, dry_run: bool) -> None:
    if not dry_run:
        rollout.run(plan)
        return
    now = look(rollout.places)
    change = plan(now)
    _print_preview(rollout, now, change, load=True)


def _preview_rollback(rollout: Rollout, name: str | None, to: str | None, reason: str) -> None:
    now = look_in_a_hurry(rollout.places, name or "")
    if name is not None:
        change = plans.plan_stop(now, name)
    else:
        change = plans.plan_back(now, plans.earlier_champions(now, to)[0], reason)
    _print_preview(rollout, now, change, load=name is None)


def _print_preview(rollout: Rollout, now: Any, change: Change, load: bool) -> None:
    for line in preview(rollout.places, rollout.fleet, now, change, rollout.keep, load):
        given.say(line)


def _act(
    rollout: Rollout, shown: Any, arm: str | None, steps: tuple[float, ...], least: float
) -> None:
    """Do what a status asks for; exits with 3 after a rollback."""
    dwelt = 0.0
    if arm is not None:
        weight = next(one.weight for one in shown.arms if one.name == arm)
        dwelt = DwellClock(rollout.places.routing).dwelt_s(f"{shown.name}/{arm}", weight)
    action = decide(shown, arm, steps, dwelt, least)
    at = _now().isoformat(timespec="seconds")
    if isinstance(action, RollBack):
        complain(f"{at} rolling {shown.name} back", action.why)
        rollout.stop(shown.name)
        raise typer.Exit(REFUSED)
    if isinstance(action, Wait):
        given.say(f"{at} {action.why}")
    elif isinstance(action, Ramp) and arm is not None:
        given.say(f"{at} ramping {arm} to {action.to:g}")
        rollout.run(partial(plans.plan_ramp, name=shown.name, arm=arm, to=action.to, at=_now()))


def _read_status(
    places: Places, name: str, table: str, prometheus: str | None, segment: str, settle: str
) -> Any:
    from deploy.analysis.experiment_status import read_status  # it brings deltalake along

    return read_status(
        _experiment(places, name),
        table,
        stages=read_stages(places.experiments, name),
        prometheus=prometheus,
        releases=places.store.folder,
        segment=segment,
        settle_ms=round(seconds(settle) * 1000),
    )


def _write_reports(shown: Any, html: Path | None, metrics: Path | None) -> None:
    if html is not None:
        from deploy.report_page.page import write_page

        write_page(shown, html)
        given.say(f"report: {html}")
    if metrics is not None:
        from deploy.monitoring.experiment_metrics import write_experiment_metrics

        write_experiment_metrics(metrics, shown)


def _tell_stopped(metrics: Path | None, name: str) -> None:
    if metrics is not None:
        from deploy.monitoring.experiment_metrics import write_stopped

        write_stopped(metrics, name)


def _experiment(places: Places, name: str) -> Experiment:
    path = places.manifest(name)
    if not path.exists():
        known = ", ".join(sorted(one.stem for one in places.experiments.glob("*.yaml"))) or "none"
        raise ContractError(f"no experiment {name} in {places.experiments}; there are: {known}")
    return read_experiment(path)


def _only_treatment(places: Places, name: str) -> str:
    treatments = _experiment(places, name).treatments
    if len(treatments) > 1:
        known = ", ".join(arm.name for arm in treatments)
        raise ContractError(f"experiment {name} has several treatments; give --arm: {known}")
    return treatments[0].name


def _print_json(plain: Any) -> None:
    text = json.dumps(msgspec.to_builtins(plain), indent=2, ensure_ascii=False)
    sys.stdout.write(text + "\n")


def _now() -> datetime:
    return datetime.now(timezone.utc)


if __name__ == "__main__":
    app()

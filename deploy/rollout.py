"""Roll releases out: experiments start, ramp and end, a champion is promoted or taken back.

Everything follows the manifests (deploy/experiments/*.yaml), the folder of releases and one file
that clients read, routing.json. A release answers on every replica before clients are sent to it,
and is unloaded after they were sent elsewhere; a rollback switches first. What was killed is
finished by the next command.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from contracts.reading import ContractError
from deploy.rolling import looking, plans
from deploy.rolling import options as given
from deploy.rolling.changes import Change
from deploy.rolling.kubernetes import outdated, rendered, write_rendered
from deploy.rolling.options import exit_codes, opened, places_of
from deploy.rolling.preview import preview
from deploy.rolling.rollouts import Plan, Rollout
from deploy.rolling.situation import look, look_in_a_hurry, only_treatment
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

app = typer.Typer(
    help=__doc__, epilog=EXAMPLES, add_completion=False, no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def start(
    name: given.Name,
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
    name: given.Name,
    to: Annotated[float, typer.Option(help="The arm's weight: 0.25; the control gets the rest.")],
    arm: given.Arm = None,
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
        chosen = arm or only_treatment(places, name)
        plan = partial(plans.plan_ramp, name=name, arm=chosen, to=to, at=_now())
        with opened(
            places, replica, repository, home, drain=drain, keep=keep, wait=wait
        ) as rollout:
            _run(rollout, plan, dry_run)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="An experiment, or a release.", metavar="NAME")],
    arm: given.Arm = None,
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
            chosen = arm or only_treatment(places, name)
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
                rollout.stop(name, reason)
            else:
                rollout.back(to, reason)


app.command()(looking.status)
app.command()(looking.watch)


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
        change = plans.plan_stop(now, name, reason)
    else:
        change = plans.plan_back(now, plans.earlier_champions(now, to)[0], reason)
    _print_preview(rollout, now, change, load=name is None)


def _print_preview(rollout: Rollout, now: Any, change: Change, load: bool) -> None:
    for line in preview(rollout.places, rollout.fleet, now, change, rollout.keep, load):
        given.say(line)


def _now() -> datetime:
    return datetime.now(timezone.utc)


if __name__ == "__main__":
    app()

"""What each command changes: a situation in, a change out. Nothing is read or written here."""

from __future__ import annotations

from datetime import datetime

import msgspec

from contracts.experiments import CHAMPION, GRAINS, Arm, Experiment, ceilings, grains
from contracts.reading import ContractError
from contracts.releases import RELEASE_NAME
from contracts.routing import Routing
from deploy.rolling.changes import ChampionMove, Change, Command, ManifestEdit, running
from deploy.rolling.situation import Situation
from training.command import Refused


def plan_start(now: Situation, name: str, at: datetime) -> Change:
    """A draft begins to run; a running one whose manifest was edited comes into force.

    Raises:
        ContractError: no such experiment, or it contradicts one that runs.
        Refused: it was stopped before, an edit would move units between arms, or routing and
            record disagree on the champion.
    """
    experiment = _experiment(now, name)
    if experiment.state == "stopped":
        raise Refused(
            f"experiment {name} was stopped; copy its manifest under another name with another salt"
        )
    started = experiment.started or at.isoformat(timespec="seconds")
    edit = ManifestEdit(name=name, state="running", started=started)
    return _run(now, "start", experiment, edit, at)


def plan_ramp(now: Situation, name: str, arm: str, to: float, at: datetime) -> Change:
    """A treatment gets another weight; the control takes up the difference.

    Raises:
        ContractError: no such experiment or arm, or the weight is none that it may have.
        Refused: it does not run, or as in ``plan_start``.
    """
    experiment = _experiment(now, name)
    if experiment.state != "running":
        raise Refused(f"experiment {name} is a {experiment.state}; a ramp is for one that runs")
    if arm == experiment.control.name:
        raise ContractError(f"arm {arm} is the control; it gets what the treatments leave")
    _arm(experiment, arm)
    try:
        taken = sum(one.weight_grains for one in experiment.treatments if one.name != arm)
        left = GRAINS - taken - grains("--to", to)
        if left < 0:
            raise ValueError(
                f"--to {to:g} and the other treatments' {taken / GRAINS:g} sum to "
                f"{to + taken / GRAINS:g}; allowed: at most 1"
            )
    except ValueError as error:
        raise ContractError(f"experiment {name}: {error}") from error
    weights = {experiment.control.name: left / GRAINS, arm: to}
    edit = ManifestEdit(name=name, state="running", weights=weights)
    return _run(now, "ramp", experiment, edit, at)


def plan_promote(now: Situation, name: str, arm: str, reason: str) -> Change:
    """An arm's release becomes champion, and its experiment ends.

    Raises:
        ContractError: no such experiment or arm.
        Refused: it never ran, or ended otherwise; or it would make two arms of another experiment
            the same.
    """
    experiment = _experiment(now, name)
    chosen = _arm(experiment, arm)
    if experiment.state == "draft":
        raise Refused(f"experiment {name} is a draft: start it first")
    base = now.base()
    release = base.release_of(chosen)
    if experiment.state == "stopped" and not (now.champion == base.champion == release):
        raise Refused(
            f"experiment {name} was stopped already; to make its release the champion without it: "
            f"promote {release if chosen.release != CHAMPION else 'rNNNN'}"
        )
    reason = reason or f"arm {arm} of experiment {name}"
    move = ChampionMove(to=release, before=now.champion, reason=reason)
    return _end(now, "promote", name, move, f"promoted {release}: {reason}")


def plan_champion(now: Situation, release: str, reason: str) -> Change:
    """A release becomes champion without an experiment; what runs goes on.

    Raises:
        Refused: it would make two arms of an experiment the same.
    """
    if now.in_force is None and now.champion is None:
        base = Routing(champion=release, exploration=now.exploration)
    else:
        base = now.base()
    move = ChampionMove(to=release, before=now.champion, reason=reason)
    after = _with_champion(base, release)
    return Change(
        command="promote",
        routing=None if after == now.in_force else after,
        champion=None if now.champion == release else move,
    )


def plan_stop(now: Situation, name: str, reason: str = "") -> Change:
    """An experiment ends, and its units go back to the champion. Needs no manifest to be whole.

    Raises:
        ContractError: neither the routing nor a manifest knows it.
    """
    known = [one.name for one in (now.in_force.experiments if now.in_force else ())]
    if name not in known:
        _experiment(now, name)
    return _end(now, "rollback", name, None, f"rolled back: {reason or 'no reason given'}")


def plan_back(now: Situation, to: str, reason: str) -> Change:
    """An earlier champion is taken back; experiments go on.

    Args:
        to: as ``earlier_champions`` says.
    """
    base = now.base()
    after = msgspec.structs.replace(base, champion=to)
    move = ChampionMove(to=to, before=now.champion, back=True, reason=reason)
    return Change(
        command="rollback",
        routing=None if after == now.in_force else after,
        champion=None if now.champion == to else move,
    )


def earlier_champions(now: Situation, to: str | None = None) -> tuple[str, ...]:
    """Where a rollback of the champion may go, the nearest first; ``to`` alone where it is given.

    Where the record was rolled back by hand and the routing has not followed, it follows.

    Raises:
        ContractError: there is no record, nothing to go back to, or ``to`` is none of it.
    """
    if now.record is None:
        raise ContractError("no champion; name one: python deploy/rollout.py promote rNNNN")
    last, served = now.record.changes[-1], now.base().champion
    if to == last.release or (to is None and last.rollback and served != last.release):
        return (last.release,)
    found = dict.fromkeys(name for name in now.record.earlier if name != last.release)
    if not found:
        raise ContractError(
            f"there is no champion to go back to from {last.release}; "
            "name one: python deploy/rollout.py promote rNNNN"
        )
    if to is not None and to not in found:
        raise ContractError(
            f"{to} is no earlier champion; allowed: {', '.join(found)}; to name another: "
            f"python deploy/rollout.py promote {to}"
        )
    return tuple(found) if to is None else (to,)


def _run(
    now: Situation, command: Command, experiment: Experiment, edit: ManifestEdit, at: datetime
) -> Change:
    base = now.base()
    if now.champion != base.champion:
        raise Refused(
            f"clients read that {base.champion} is the champion, and the record of champions says "
            f"{now.champion}; settle it first: python deploy/rollout.py promote {now.champion}, "
            "or rollback"
        )
    try:
        after = running(experiment, edit)
        others = [one for one in base.experiments if one.name != experiment.name]
        ordered = tuple(sorted((*others, after), key=lambda one: one.name))
        routing = msgspec.structs.replace(base, experiments=ordered)
    except ValueError as error:
        raise ContractError(str(error)) from error
    _check_distinct(routing, after)
    served = now.in_force.experiments if now.in_force else ()
    before = next((one for one in served if one.name == experiment.name), None)
    if before is not None:
        _check_nobody_moves(before, after)
    is_stage = before is None or weights_of(before) != weights_of(after)
    if is_stage:
        since = round(at.timestamp() * 1000)
        edit = msgspec.structs.replace(edit, since=since, weights=weights_of(after))
    return Change(
        command=command,
        name=experiment.name,
        routing=None if routing == now.in_force else routing,
        edits=(edit,) if is_stage or after != experiment else (),
    )


def _end(
    now: Situation, command: Command, name: str, move: ChampionMove | None, reason: str
) -> Change:
    base = now.base()
    others = tuple(one for one in base.experiments if one.name != name)
    after = msgspec.structs.replace(base, experiments=others)
    if move is not None:
        after = _with_champion(after, move.to)
    experiment = now.experiments.get(name)
    stopped = experiment is not None and experiment.state == "stopped"
    return Change(
        command=command,
        name=name,
        routing=None if after == now.in_force else after,
        champion=None if move is None or now.champion == move.to else move,
        edits=() if stopped else (ManifestEdit(name=name, state="stopped", reason=reason),),
    )


def _with_champion(base: Routing, release: str) -> Routing:
    after = msgspec.structs.replace(base, champion=release)
    for experiment in after.experiments:
        _check_distinct(after, experiment)
    return after


def _check_distinct(routing: Routing, experiment: Experiment) -> None:
    """An arm that names the champion's release, and one that follows the champion, are the same."""
    if experiment.aa:
        return
    seen: dict[tuple[str, object], str] = {}
    for arm in experiment.arms:
        what = (routing.release_of(arm), arm.exploration)
        if what in seen:
            raise Refused(
                f"arms {seen[what]} and {arm.name} of experiment {experiment.name} would both "
                f"serve {what[0]}: nothing to compare; stop that experiment, or name another "
                "release"
            )
        seen[what] = arm.name


def _check_nobody_moves(before: Experiment, after: Experiment) -> None:
    """An edit while it runs may change weights, and nothing that deals the units anew."""
    for what, old, new in (
        ("salt", before.salt, after.salt),
        ("unit", before.unit, after.unit),
        ("arms", [a.name for a in before.arms], [a.name for a in after.arms]),
        ("releases", [a.release for a in before.arms], [a.release for a in after.arms]),
        ("ceilings", ceilings(before), ceilings(after)),
    ):
        if old != new:
            raise Refused(
                f"experiment {after.name} runs, and its manifest has other {what} by now: units "
                "would change arms, and nothing it measures could be believed; put them back, or "
                "stop it and start another"
            )


def weights_of(experiment: Experiment) -> dict[str, float]:
    """The weight of each arm by name."""
    return {arm.name: arm.weight for arm in experiment.arms}


def _experiment(now: Situation, name: str) -> Experiment:
    if name in now.experiments:
        return now.experiments[name]
    if RELEASE_NAME.match(name):
        raise ContractError(f"{name} is a release; allowed: the name of an experiment")
    known = ", ".join(now.experiments) or "none"
    raise ContractError(f"no experiment {name}; there are: {known}")


def _arm(experiment: Experiment, name: str) -> Arm:
    for arm in experiment.arms:
        if arm.name == name:
            return arm
    known = ", ".join(arm.name for arm in experiment.arms)
    raise ContractError(f"experiment {experiment.name} has no arm {name}; there are: {known}")


def is_release(name: str) -> bool:
    """Whether a command's argument is a release rather than an experiment."""
    return RELEASE_NAME.match(name) is not None

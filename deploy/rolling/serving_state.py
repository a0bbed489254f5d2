"""What is written down, what clients read and what replicas serve: do the three agree?"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from contracts.experiments import Experiment, read_experiment
from contracts.reading import ContractError, Strict
from contracts.routing import Routing
from deploy.rolling.changes import pending
from deploy.rolling.replicas import Fleet, Replica, ReplicaError
from deploy.rolling.situation import Places, read_record, read_routing


class ReplicaState(Strict, kw_only=True, frozen=True):
    """One replica.

    Attributes:
        loaded: the releases that it says are ready. missing: named by the routing, and not loaded.
        silent: named and loaded, and a question is not answered: why.
        error: why nothing is known of it; "" if it could be asked.
    """

    address: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    silent: dict[str, str] = msgspec.field(default_factory=dict)
    error: str = ""


class ServingState(Strict, kw_only=True, frozen=True):
    """Attributes:
    sha: of routing.json, 12 digits, as clients export it (``gref_client_routing_info``); "" where
        there is none.
    champion: that clients read. record: that the record of champions names.
    releases: that a request may be sent to.
    experiments: that run, with the weight of each arm.
    problems: where anything disagrees, a sentence each; none if all is well.
    """

    routing: str
    sha: str
    champion: str | None
    record: str | None
    releases: tuple[str, ...]
    experiments: dict[str, dict[str, float]]
    replicas: tuple[ReplicaState, ...]
    problems: tuple[str, ...]


def read_serving_state(places: Places, fleet: Fleet) -> ServingState:
    """Read all three; whatever cannot be read is a problem, and no error."""
    problems: list[str] = []
    routing = _routing(places, problems)
    record = _record(places, routing, problems)
    _compare_manifests(places, routing, problems)
    names = routing.releases if routing else ()
    replicas = _replicas(fleet, names)
    for one in replicas:
        problems += [f"replica {one.error}"] if one.error else []
        problems += [f"replica {one.address}: {name} is not loaded" for name in one.missing]
        problems += [f"replica {one.address}: {name}: {why}" for name, why in one.silent.items()]
    return ServingState(
        routing=str(places.routing),
        sha=routing_sha(places.routing),
        champion=routing.champion if routing else None,
        record=record,
        releases=names,
        experiments={
            one.name: {arm.name: arm.weight for arm in one.arms}
            for one in (routing.experiments if routing else ())
        },
        replicas=replicas,
        problems=tuple(problems),
    )


def routing_sha(path: Path) -> str:
    """The first 12 digits of the file's SHA-256, as clients export it; "" where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError:
        return ""


def _routing(places: Places, problems: list[str]) -> Routing | None:
    try:
        routing = read_routing(places.routing)
    except ContractError as error:
        problems.append(f"clients keep an older routing, for this one is damaged: {error}")
        return None
    if routing is None:
        problems.append(
            f"{places.routing}: no routing yet; the first: python deploy/rollout.py promote rNNNN"
        )
    try:
        if (change := pending(places.routing)) is not None and change.stage == "switch":
            what = f"{change.command} {change.name}".strip()
            problems.append(f"a {what} was interrupted; the next command finishes it")
    except ContractError as error:
        problems.append(str(error))
    return routing


def _record(places: Places, routing: Routing | None, problems: list[str]) -> str | None:
    try:
        record = read_record(places.store)
    except ContractError as error:
        problems.append(str(error))
        return None
    name = record.release if record else None
    if routing is not None and routing.champion != name:
        problems.append(
            f"clients read that {routing.champion} is the champion, and the record of champions "
            f"says {name or 'none'}; settle it: python deploy/rollout.py promote rNNNN"
        )
    return name


def _compare_manifests(places: Places, routing: Routing | None, problems: list[str]) -> None:
    """Each manifest with what clients read of it; a broken one does not hide the others."""
    served = {one.name: one for one in (routing.experiments if routing else ())}
    written: dict[str, Experiment] = {}
    if not places.experiments.is_dir():
        problems.append(f"{places.experiments}: no such folder of experiments")
    for path in sorted(places.experiments.glob("*.yaml")):
        try:
            written[path.stem] = read_experiment(path)
        except ContractError as error:
            problems.append(str(error))
            served.pop(path.stem, None)
    for name, experiment in written.items():
        if name not in served and experiment.state == "running":
            problems.append(
                f"experiment {name}: its manifest says that it runs, and clients do not read it: "
                f"python deploy/rollout.py start {name}"
            )
        if name in served and experiment != served[name]:
            told = (
                "is not what clients read"
                if experiment.state == "running"
                else "is " + (f"{experiment.state}, and clients read that it runs")
            )
            problems.append(
                f"experiment {name}: its manifest {told}: python deploy/rollout.py start {name} "
                "makes it so, rollback ends it"
            )
    for name in served.keys() - written.keys():
        problems.append(f"experiment {name}: clients read it, and it has no manifest")


def _replicas(fleet: Fleet, names: tuple[str, ...]) -> tuple[ReplicaState, ...]:
    def ask(replica: Replica) -> ReplicaState:
        loaded = replica.loaded()
        there = [name for name in names if name in loaded]
        silent = {name: failure for name in there if (failure := replica.failure(name, 5.0))}
        missing = tuple(name for name in names if name not in loaded)
        return ReplicaState(address=replica.address, loaded=loaded, missing=missing, silent=silent)

    return tuple(
        ReplicaState(address=address, error=str(answer))
        if isinstance(answer, ReplicaError)
        else answer
        for address, answer in fleet.each(ask).items()
    )

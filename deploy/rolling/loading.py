"""Releases onto replicas before clients are sent there, and off them when nobody is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from contracts.champion import ChampionFile
from contracts.experiments import CHAMPION, Experiment
from contracts.releases import ReleaseManifest
from contracts.routing import Routing
from deploy.rolling.replicas import Fleet, Replica, ReplicaError, failures
from deploy.served_repository import add_release
from deploy.triton_install import StackError
from training.command import Refused
from training.release.store import ReleaseStore

Say = Callable[[str], None]
#: Within a rollback nothing may take long: a replica that is silent is left behind.
HURRY_S = 0.4


def ensure_loaded(
    fleet: Fleet, store: ReleaseStore, releases: Iterable[str], install: Install, say: Say
) -> None:
    """See to it that every replica answers for every release; idempotent.

    Raises:
        ContractError: a release is not in the store, or is damaged.
        Refused: a replica cannot be reached, has not got a release, or does not answer for it;
            it is named.
    """
    for release in releases:
        manifest = store.verify(release)
        install(store.path(release))
        answers = fleet.each(partial(_load, release=release, manifest=manifest))
        if failed := failures(answers):
            raise Refused(
                f"{release} is not served by every replica, so nothing was switched: "
                + "; ".join(failed)
            )
        fresh = [address for address, loaded in answers.items() if loaded is True]
        say(
            f"{release} answers on {len(answers)} of {len(answers)} replicas"
            + (f", loaded on {', '.join(fresh)}" if fresh else "")
        )


def _load(replica: Replica, release: str, manifest: ReleaseManifest) -> bool:
    return replica.load(release, manifest)


def ensure_loaded_in_a_hurry(fleet: Fleet, store: ReleaseStore, release: str, say: Say) -> None:
    """As ``ensure_loaded`` for a rollback: replicas that are silent do not stand in its way.

    Raises:
        Refused: no replica serves the release.
    """

    def one(replica: Replica) -> str:
        if release not in replica.loaded(HURRY_S):
            say(f"{replica.address}: {release} is not loaded any more; loading it first")
            replica.load(release, store.manifest(release))
        elif failure := replica.failure(release, HURRY_S):
            return f"{replica.address}: {release} is loaded, and at this moment: {failure}"
        return ""

    answers = fleet.each(one)
    silent = failures(answers)
    for words in (*silent, *(answer for answer in answers.values() if isinstance(answer, str))):
        if words:
            say(f"warning: {words}")
    if len(silent) == len(answers):
        raise Refused(f"{release} is served by no replica, so nothing was switched")


class Install:
    """Copying releases into the repositories that Tritons on this machine serve from."""

    def __init__(self, copies: Sequence[Path] = (), links: Path | None = None) -> None:
        """``copies``: repositories that get copies; ``links``: that of the local stack."""
        self._copies, self._links = copies, links

    def __call__(self, release: Path) -> None:
        if self._links is not None:
            try:
                add_release(release, self._links)
            except StackError as error:
                raise Refused(str(error)) from error
        if self._copies:
            from training.release.installing import install  # it brings torch along

            for repository in self._copies:
                install(release, repository)


def superfluous(
    loaded: Iterable[str],
    routing: Routing,
    record: ChampionFile,
    experiments: Iterable[Experiment],
    keep: int,
) -> tuple[str, ...]:
    """Which of the loaded releases nobody is sent to any more.

    Only what a rollout once loaded: champions of the past, and arms of experiments that were
    stopped. What a draft or an edited manifest names, and what is nobody's, stays.

    Args:
        keep: so many champions before this one stay, for a rollback that takes effect at once.
    """
    experiments = tuple(experiments)
    ours = {change.release for change in record.changes}
    stays = {*routing.releases, record.release}
    for experiment in experiments:
        named = {arm.release for arm in experiment.arms if arm.release != CHAMPION}
        (ours if experiment.state == "stopped" else stays).update(named)
    earlier = dict.fromkeys(name for name in record.earlier if name != record.release)
    stays.update(list(earlier)[:keep])
    return tuple(name for name in loaded if name in ours - stays)


def loaded_in_vain(
    fleet: Fleet,
    routing: Routing,
    record: ChampionFile,
    experiments: Iterable[Experiment],
    keep: int,
) -> dict[str, tuple[str, ...]]:
    """``superfluous`` of each replica that can be reached, where there is any."""
    experiments = tuple(experiments)
    found = {
        address: superfluous(names, routing, record, experiments, keep)
        for address, names in fleet.loaded().items()
        if not isinstance(names, ReplicaError)
    }
    return {address: names for address, names in found.items() if names}

"""Releases onto replicas before clients are sent there, and off them when nobody is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
#: But where all are silent nothing can be switched, so there is time.
PATIENCE_S, _PAUSE_S = 5.0, 0.2


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

    Where all of them are, they may be busy (with the release that is to go), and are asked again
    with patience.

    Raises:
        Refused: no replica serves the release.
    """

    def one(replica: Replica, patience_s: float) -> str:
        if release not in replica.loaded(patience_s):
            say(f"{replica.address}: {release} is not loaded any more; loading it first")
            replica.load(release, store.manifest(release))
        elif failure := replica.failure(release, patience_s):
            return f"{replica.address}: {release} is loaded, and at this moment: {failure}"
        return ""

    give_up, patience_s = time.monotonic() + PATIENCE_S, HURRY_S
    while True:
        answers = fleet.each(partial(one, patience_s=patience_s))
        silent = failures(answers)
        if not answers or len(silent) < len(answers) or time.monotonic() > give_up:
            break
        time.sleep(_PAUSE_S)
        patience_s = PATIENCE_S
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
    loaded: Mapping[str, tuple[str, ...] | ReplicaError],
    routing: Routing,
    record: ChampionFile,
    experiments: Iterable[Experiment],
    keep: int,
) -> dict[str, tuple[str, ...]]:
    """``superfluous`` of each replica that could be asked, by address, where there is any.

    Args:
        loaded: as ``Fleet.occupied`` says.
    """
    experiments = tuple(experiments)
    found = {
        address: superfluous(names, routing, record, experiments, keep)
        for address, names in loaded.items()
        if not isinstance(names, ReplicaError)
    }
    return {address: names for address, names in found.items() if names}

"""What is in force and what is written down: the ground on which a change is planned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contracts.champion import CHAMPION_FILE, ChampionFile
from contracts.experiments import Experiment, Exploration, read_experiment, read_experiments
from contracts.reading import ContractError, read_json, read_yaml
from contracts.routing import Routing, compile_routing
from training.release.store import ReleaseStore


@dataclass(frozen=True)
class Places:
    """Where the parts of a rollout lie.

    Attributes:
        experiments: folder of manifests.
        routing: the file that clients read.
        exploration: a file with the exploration outside of experiments; may be missing.
    """

    experiments: Path
    routing: Path
    store: ReleaseStore

    @property
    def exploration(self) -> Path:
        return self.experiments.with_name("exploration.yaml")

    def manifest(self, experiment: str) -> Path:
        return self.experiments / f"{experiment}.yaml"


@dataclass(frozen=True)
class Situation:
    """Attributes:
    in_force: what clients read; null before the first rollout.
    record: of champions; null before the first.
    experiments: by name. A rollback does without, for one broken file must not be in its way.
    exploration: outside of experiments, for a routing that is compiled anew.
    """

    in_force: Routing | None
    record: ChampionFile | None
    experiments: dict[str, Experiment]
    exploration: Exploration | None = None

    @property
    def champion(self) -> str | None:
        return self.record.release if self.record else None

    def base(self) -> Routing:
        """What a change starts from: the routing in force, else what is written down.

        A change touches only what it names, so edits of other manifests stay out of it.

        Raises:
            ContractError: there is neither a routing nor a champion; or, without a routing, running
                experiments contradict one another.
        """
        if self.in_force is not None:
            return self.in_force
        if self.champion is None:
            raise ContractError("no champion; name one: python deploy/rollout.py promote rNNNN")
        try:
            return compile_routing(self.champion, self.experiments.values(), self.exploration)
        except ValueError as error:
            raise ContractError(str(error)) from error


def look(places: Places) -> Situation:
    """Everything, read and checked.

    Raises:
        ContractError: a manifest, the routing or the record is damaged.
    """
    return Situation(
        in_force=read_routing(places.routing),
        record=read_record(places.store),
        experiments=read_experiments(places.experiments),
        exploration=read_exploration(places),
    )


def look_in_a_hurry(places: Places, name: str = "") -> Situation:
    """For a rollback: what is in force, and of the manifests only that of ``name``.

    A routing that cannot be read counts as none: clients keep the last good one, and the rollback
    writes a good one.
    """
    try:
        in_force = read_routing(places.routing)
    except ContractError:
        in_force = None
    experiments = {}
    if in_force is None:  # nothing else says what runs
        experiments = read_experiments(places.experiments)
    elif name and places.manifest(name).exists():
        try:
            experiments = {name: read_experiment(places.manifest(name))}
        except ContractError:
            if all(name != running.name for running in in_force.experiments):
                raise
    record = read_record(places.store)
    return Situation(in_force, record, experiments, read_exploration(places))


def compiled(places: Places) -> Routing:
    """The routing as the champion and all manifests say, whatever is in force.

    Raises:
        ContractError: there is no champion, a manifest is damaged, or two contradict one another.
    """
    record = places.store.record()
    experiments = read_experiments(places.experiments)
    try:
        return compile_routing(record.release, experiments.values(), read_exploration(places))
    except ValueError as error:
        raise ContractError(f"{places.experiments}: {error}") from error


def read_routing(path: Path) -> Routing | None:
    """The routing in force; None where there is none yet."""
    return read_json(path, Routing) if path.exists() else None


def read_record(store: ReleaseStore) -> ChampionFile | None:
    """The record of champions; None where there is none yet."""
    return store.record() if (store.folder / CHAMPION_FILE).exists() else None


def read_exploration(places: Places) -> Exploration | None:
    """The exploration outside of experiments; None where no file says one."""
    path = places.exploration
    return read_yaml(path, Exploration) if path.exists() else None


def experiment_named(places: Places, name: str) -> Experiment:
    """An experiment by its manifest; raises ContractError where there is none of that name."""
    path = places.manifest(name)
    if not path.exists():
        known = ", ".join(sorted(one.stem for one in places.experiments.glob("*.yaml"))) or "none"
        raise ContractError(f"no experiment {name} in {places.experiments}; there are: {known}")
    return read_experiment(path)


def only_treatment(places: Places, name: str) -> str:
    """The treatment's name; raises ContractError where there are several to choose from."""
    treatments = experiment_named(places, name).treatments
    if len(treatments) > 1:
        known = ", ".join(arm.name for arm in treatments)
        raise ContractError(f"experiment {name} has several treatments; give --arm: {known}")
    return treatments[0].name

"""Two real Tritons for all rollout tests, and for each test folders of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.champion import ChampionFile
from contracts.experiments import Experiment, read_experiment
from contracts.reading import read_json
from contracts.routing import Routing
from deploy.local_triton import LocalTriton
from deploy.rolling.replicas import Fleet
from deploy.rolling.situation import Places
from deploy.served_repository import add_release
from tests.rollout.light_releases import publish_light
from tests.rollout.manifests import manifest
from tests.serving.conftest import local_triton
from tests.serving.toy_engines import write_toy_engines
from training.release.store import ReleaseStore

RELEASES = ("r0001", "r0002", "r0003")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three light releases, r0001 the champion; read-only by agreement."""
    engines = write_toy_engines(tmp_path_factory.mktemp("engines"))
    releases = tmp_path_factory.mktemp("store") / "releases"
    publish_light(engines, releases, len(RELEASES))
    return releases


@pytest.fixture(scope="session")
def stacks(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalTriton, ...]]:
    """Two Tritons; the first has all releases in its repository, the second all but r0003."""
    with (
        local_triton(tmp_path_factory.mktemp("one")) as one,
        local_triton(tmp_path_factory.mktemp("two")) as two,
    ):
        for stack, names in ((one, RELEASES), (two, RELEASES[:2])):
            for name in names:
                add_release(template / name, stack.home.repository)
        yield one, two


@dataclass
class World:
    """A folder with a store, manifests and a routing, and the replicas."""

    folder: Path
    stacks: tuple[LocalTriton, ...]

    @property
    def places(self) -> Places:
        return Places(
            experiments=self.folder / "experiments",
            routing=self.folder / "routing.json",
            store=ReleaseStore(self.folder / "releases"),
        )

    @property
    def addresses(self) -> list[str]:
        return [stack.state().grpc_url for stack in self.stacks]

    @property
    def options(self) -> list[str]:
        """Of the command, the replicas included."""
        places = self.places
        told = ["--experiments", places.experiments, "--releases", places.store.folder]
        told += ["--routing", places.routing]
        for address in self.addresses:
            told += ["--replica", address]
        return [str(one) for one in told]

    def routing(self) -> Routing:
        return read_json(self.places.routing, Routing)

    def record(self) -> ChampionFile:
        return self.places.store.record()

    def experiment(self, name: str = "trial") -> Experiment:
        return read_experiment(self.places.manifest(name))

    def write(self, name: str = "trial", **changes: object) -> None:
        self.places.manifest(name).write_text(manifest(name, **changes))

    def loaded(self) -> list[tuple[str, ...]]:
        with Fleet(self.addresses) as fleet:
            return [replica.loaded() for replica in fleet.replicas]

    def load_only(self, *names: str) -> None:
        """Bring every replica into a state: these releases loaded, no other."""
        with Fleet(self.addresses) as fleet:
            for replica in fleet.replicas:
                for name in set(replica.loaded()) - set(names):
                    replica.unload(name)
                for name in set(names) - set(replica.loaded()):
                    replica.load(name, self.places.store.manifest(name))


@pytest.fixture
def world(stacks: tuple[LocalTriton, ...], template: Path, tmp_path: Path) -> World:
    """r0001 is champion and loaded on two replicas; the experiment ``trial`` is a draft."""
    return make_world(tmp_path, stacks, template)


def make_world(folder: Path, stacks: tuple[LocalTriton, ...], template: Path) -> World:
    shutil.copytree(template, folder / "releases")
    (folder / "experiments").mkdir()
    made = World(folder, stacks)
    made.write()
    made.load_only("r0001")
    return made

"""One Triton for all serving tests that leave it healthy; the others start their own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry

from deploy.local_triton import LocalTriton
from handlers.client import RerankClient
from handlers.rerank_metrics import RerankMetrics
from tests.serving.toy_engines import write_toy_engines
from training.release.publishing import publish

torch.set_num_threads(1)

#: Generous: a busy machine must not turn a test of correctness into one of speed.
DEADLINE_MS = 60_000.0


def local_triton(home: Path) -> LocalTriton:
    """A stack in a test's own folder, on free ports; GREF_TRITON names a Triton that is there."""
    given = os.environ.get("GREF_TRITON")
    return LocalTriton(home, triton=Path(given) if given else None)


@dataclass(frozen=True)
class Served:
    """A running Triton that serves the toy release."""

    stack: LocalTriton
    release: str

    @property
    def url(self) -> str:
        return self.stack.state().grpc_url

    def client(self, **options: object) -> RerankClient:
        return RerankClient(
            self.url,
            self.release,
            **{
                "deadline_ms": DEADLINE_MS,
                "metrics": RerankMetrics(CollectorRegistry()),
                **options,
            },
        )


@pytest.fixture(scope="session")
def toy_engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engines folder as an export leaves it; read-only by agreement."""
    return write_toy_engines(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def toy_release(toy_engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy engines as release r0001; read-only by agreement."""
    return publish(toy_engines, tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="session")
def served(toy_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Triton with the toy release. A test that uses it leaves it as it was."""
    with local_triton(tmp_path_factory.mktemp("stack")) as stack:
        yield Served(stack, stack.load(toy_release))


@pytest.fixture
def alive(served: Served) -> Iterator[Served]:
    """``served``, and after the test proof that it still answers."""
    from tests.serving.toy_engines import toy_request

    pid = served.stack.state().pid
    yield served
    assert served.stack.state().pid == pid
    give_up = time.monotonic() + 10
    with served.client() as client:
        # A new connection may take longer than a client waits for one where all cores are busy.
        while (result := client.rerank(toy_request(1))).fallback == "unavailable":
            assert time.monotonic() < give_up, result
        assert result.fallback is None

"""The Tritons that serve, as a rollout sees them: what is loaded, does it answer, load, unload."""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import tritonclient.grpc as triton
from prometheus_client import CollectorRegistry
from tritonclient.utils import InferenceServerException

from contracts.reading import ContractError
from contracts.releases import RELEASE_NAME, ReleaseManifest
from contracts.slates import Candidate, RerankRequest
from deploy.control_key import use_control_key
from handlers.client import RerankClient
from handlers.rerank_base import CHANNEL_OPTIONS
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankResult
from handlers.served_release import model_of

T = TypeVar("T")
LOAD_S, CALL_S, PROBE_S = 300.0, 10.0, 30.0
#: For an unload that keeps a rollback waiting: one that takes longer is left to the next rollout.
HASTY_UNLOAD_S = 0.5
_POLL_S = 0.05
_PROBES, _PAUSE_S = 3, 0.3
_ADDRESS = re.compile(r"(?:dns:///)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+):(?P<port>[0-9]+)")


class ReplicaError(RuntimeError):
    """A replica cannot be reached, or refused; the message names it and its words."""


class Replica:
    """One Triton, by the address of its gRPC endpoint. Safe to share between threads."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = triton.InferenceServerClient(address, channel_args=list(CHANNEL_OPTIONS))
        use_control_key(self._client)

    def loaded(self, call_s: float = CALL_S) -> tuple[str, ...]:
        """The releases whose ensemble is said to be ready, sorted.

        Raises:
            ReplicaError: it cannot be reached within ``call_s``.
        """
        ready = [model for model, state in self._models(call_s).items() if state == "READY"]
        names = [model.removeprefix("gref_") for model in ready if model.startswith("gref_")]
        return tuple(sorted(name for name in names if RELEASE_NAME.match(name)))

    def occupied(self) -> tuple[str, ...]:
        """The releases of which any model is ready, sorted: of one killed while it unloads, a step.

        Raises:
            ReplicaError: it cannot be reached.
        """
        ready = (model for model, state in self._models(CALL_S).items() if state == "READY")
        parts = (model.split("_")[1] for model in ready if model.startswith("gref_"))
        return tuple(sorted({name for name in parts if RELEASE_NAME.match(name)}))

    def failure(self, release: str, probe_s: float = PROBE_S) -> str | None:
        """What a loaded release says to a request that lacks every feature; None if it answers.

        Readiness is not asked: Triton 2.51 goes on calling a model ready whose process died.
        """
        return self._probe(release, probe_s).error

    def _probe(self, release: str, probe_s: float) -> RerankResult:
        request = RerankRequest(request_id="probe", user="", candidates=(Candidate(item="probe"),))
        metrics = RerankMetrics(CollectorRegistry())  # a probe is no traffic
        with RerankClient(
            self.address, release, deadline_ms=1000 * probe_s, metrics=metrics
        ) as client:
            return client.rerank(request)

    def _is_dead(self, release: str) -> bool:
        """Whether a loaded release fails again and again; it may be serving, so once is not enough.

        Raises:
            ReplicaError: it takes too long to answer, which loading it afresh would not mend.
        """
        for attempt in range(_PROBES):
            time.sleep(_PAUSE_S if attempt else 0.0)
            result = self._probe(release, PROBE_S)
            if result.error is None:
                return False
        if result.fallback == "deadline":
            raise ReplicaError(f"{self.address}: {release} is loaded but: {result.error}")
        return True

    def load(self, release: str, manifest: ReleaseManifest) -> bool:
        """Load a release unless it answers already; whether anything had to be done.

        One that is loaded and does not answer is loaded afresh.

        Raises:
            ReplicaError: it is not in the replica's repository, does not load or does not answer.
        """
        if release in self.loaded():
            if not self._is_dead(release):
                self._check_engines(release, manifest)
                return False
            self.unload(release)
            self.wait_unloaded(release)
        self.send_load(release)
        if failure := self.failure(release):
            raise ReplicaError(f"{self.address}: {release} is loaded but: {failure}")
        self._check_engines(release, manifest)
        return True

    def unload(self, release: str, call_s: float = LOAD_S) -> None:
        """Take a release out of service, the ensemble first. Idempotent.

        Requests that are being answered are answered; it returns before it is all gone.

        Raises:
            ReplicaError: it cannot be reached, or a call took longer than ``call_s``.
        """
        for model in self._ready(release, min(call_s, CALL_S)):
            self.send_unload(model, call_s)

    def wait_unloaded(self, release: str) -> None:
        """Wait until nothing of a release takes requests any more.

        Not until its processes have ended: one that died by itself would be waited for in vain.
        """
        give_up = time.monotonic() + LOAD_S
        while self._ready(release):
            if time.monotonic() > give_up:
                raise ReplicaError(f"{self.address}: {release} not unloaded after {LOAD_S:g} s")
            time.sleep(_POLL_S)

    def send_load(self, release: str) -> None:
        """Load an ensemble, which brings its steps, whatever is loaded already."""
        self._call(lambda c: c.load_model(model_of(release), client_timeout=LOAD_S))

    def send_unload(self, model: str, call_s: float = LOAD_S) -> None:
        """Unload one model."""
        self._call(lambda c: c.unload_model(model, client_timeout=call_s))

    def close(self) -> None:
        self._client.close()

    def _models(self, call_s: float) -> dict[str, str]:
        """The state of each model; "" where it was never loaded."""
        index = self._call(lambda c: c.get_model_repository_index(client_timeout=call_s))
        return {model.name: model.state for model in index.models}

    def _ready(self, release: str, call_s: float = CALL_S) -> list[str]:
        """The models of a release that are ready, the ensemble first."""
        ours = re.compile(rf"{model_of(release)}(?:_[a-z]+)?")
        states = self._models(call_s).items()
        return sorted(
            model for model, state in states if state == "READY" and ours.fullmatch(model)
        )

    def _check_engines(self, release: str, manifest: ReleaseManifest) -> None:
        """Another release of the same name, as another store would give, must not be served."""
        for engine in manifest.engines:
            model = f"{model_of(release)}_{engine.part}"
            config = self._call(partial(_config, model))
            served = config.config.parameters["engine_sha256"].string_value
            if served != manifest.files.get(engine.file):
                raise ReplicaError(
                    f"{self.address}: {release} there has another {engine.part} than the store's "
                    f"({served[:12]}, not {manifest.files.get(engine.file, '')[:12]}); unload it, "
                    "take it out of that repository (training/releases.py uninstall), install it"
                )

    def _call(self, call: Callable[[triton.InferenceServerClient], T]) -> T:
        try:
            return call(self._client)
        except InferenceServerException as error:
            raise ReplicaError(f"{self.address}: {error.message()}") from error


def _config(model: str, client: triton.InferenceServerClient) -> Any:
    return client.get_model_config(model, client_timeout=CALL_S)


class Fleet:
    """All replicas. What is asked of it is asked of each, side by side."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.replicas = tuple(Replica(address) for address in addresses)
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(self.replicas)))

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)
        for replica in self.replicas:
            replica.close()

    def each(self, call: Callable[[Replica], T]) -> dict[str, T | ReplicaError]:
        """``call`` of every replica, by address: what it returned, or the ReplicaError."""

        def one(replica: Replica) -> T | ReplicaError:
            try:
                return call(replica)
            except ReplicaError as error:
                return error

        answers = self._pool.map(one, self.replicas)
        return {replica.address: answer for replica, answer in zip(self.replicas, answers)}

    def loaded(self) -> dict[str, tuple[str, ...] | ReplicaError]:
        return self.each(lambda replica: replica.loaded())

    def occupied(self) -> dict[str, tuple[str, ...] | ReplicaError]:
        return self.each(lambda replica: replica.occupied())


def failures(answers: dict[str, T | ReplicaError]) -> list[str]:
    """The words of those replicas that failed."""
    return [str(answer) for answer in answers.values() if isinstance(answer, ReplicaError)]


def resolve(names: Iterable[str]) -> tuple[str, ...]:
    """host:port of every replica, each once, sorted; a DNS name stands for all of its addresses.

    So the name of a headless service stands for its pods. Where a name has addresses of IPv4 and of
    IPv6 those of IPv4 are taken, for they are the same servers.

    Raises:
        ContractError: a name is no host:port, or has no address.
    """
    found: set[str] = set()
    for name in names:
        match = _ADDRESS.fullmatch(name)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ContractError(f"--replica {name}: allowed: host:port, such as triton:8001")
        host, port = match["host"].strip("[]"), int(match["port"])
        found.update(_join(address, port) for address in _addresses(host, name))
    if not found:
        raise ContractError("no replica; name Triton's gRPC address: --replica host:port")
    return tuple(sorted(found))


def _addresses(host: str, name: str) -> set[str]:
    try:
        return {str(ipaddress.ip_address(host))}
    except ValueError:
        pass
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ContractError(f"--replica {name}: {host} has no address: {error}") from error
    of_ipv4 = {str(address[0]) for family, *_, address in answers if family == socket.AF_INET}
    return of_ipv4 or {str(address[0]) for *_, address in answers}


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

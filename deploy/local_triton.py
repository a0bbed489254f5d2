"""The local Triton as an object: up, load a release, status, down."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import tritonclient.grpc as triton
from prometheus_client import CollectorRegistry
from tritonclient.utils import InferenceServerException

from contracts.locking import one_at_a_time
from contracts.releases import RELEASE_NAME
from contracts.slates import Candidate, RerankRequest
from deploy.served_repository import add_release, ensemble_of, models_of
from deploy.triton_install import ROOT, StackError, find_triton
from deploy.triton_process import (
    Home,
    Ports,
    StackState,
    is_alive,
    log_tail,
    read_state,
    start,
    stop,
)
from handlers.client import RerankClient
from handlers.rerank_metrics import RerankMetrics

DEFAULT_HOME = ROOT / ".local" / "stack"
START_S, LOAD_S, PROBE_S, STOP_S = 60.0, 300.0, 30.0, 15.0
_POLL_S = 0.05
#: A port chosen as free can be taken before Triton binds it; then others are chosen.
_START_ATTEMPTS = 3


class TritonCrashedError(StackError):
    """Triton ended by itself; the message holds the end of its log."""


class LocalTriton:
    """One Triton on this machine, known by its home folder (state, log, served repository).

    As a context manager it is up inside and down after, whatever happens between.
    """

    def __init__(
        self, home: Path = DEFAULT_HOME, *, triton: Path | None = None, ports: Ports | None = None
    ) -> None:
        self.home = Home(home)
        self.ports = ports or Ports()
        self._given = triton
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalTriton:
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def up(self, start_s: float = START_S) -> StackState:
        """Start Triton unless it runs, and wait until it is ready. Harmless when it is up.

        Raises:
            TritonCrashedError: it ended before it was ready.
            StackError: it was not ready within ``start_s``, or could not be started.
        """
        with one_at_a_time(self.home.lock):
            state = read_state(self.home)
            if state is not None and is_alive(state):
                self._wait_ready(state, start_s)
                return state
            if state is not None:
                stop(state, self._process, STOP_S)  # clears what a crash left behind
            self._clear_links()
            files = find_triton(self._given)
            for attempt in range(_START_ATTEMPTS):
                state, self._process = start(self.home, files, self.ports)
                try:
                    self._wait_ready(state, start_s)
                    return state
                except TritonCrashedError as error:
                    self._forget(state)
                    if "in use" not in str(error) or attempt + 1 == _START_ATTEMPTS:
                        raise
                except BaseException:
                    self._forget(state)
                    raise
            raise AssertionError("the last attempt returns or raises")

    def down(self) -> bool:
        """Stop what ``up`` started; False if nothing ran."""
        with one_at_a_time(self.home.lock):
            state = read_state(self.home)
            if state is None:
                return False
            ran = is_alive(state)
            self._forget(state)
            return ran

    def state(self) -> StackState:
        """Where the running Triton can be reached.

        Raises:
            TritonCrashedError: it ended by itself since it was started.
            StackError: it was never started, or was stopped.
        """
        if self._process is not None:
            self._process.poll()
        state = read_state(self.home)
        if state is None:
            raise StackError("Triton is not running; start it with: python deploy/local.py up")
        if not is_alive(state):
            raise _crashed(state)
        return state

    def load(self, release: Path) -> str:
        """Verify a release, load it and see that it answers; returns its name. Idempotent.

        A release that is loaded but does not answer is loaded afresh: Triton does not start an
        engine's process again after it died, and goes on calling the model ready.

        Raises:
            StackError: the release is damaged, Triton refuses it, or it does not answer; the
                message says why. It is taken out again.
        """
        state = self.state()
        name = add_release(release, self.home.repository)
        try:
            # Loading the ensemble loads its two steps, side by side. Loading each by name first
            # has been seen to load them a second time when the ensemble follows.
            self.load_model(ensemble_of(name))
            if self.failure(name):
                self.unload(name)
                add_release(release, self.home.repository)
                self.load_model(ensemble_of(name))
                failure = self.failure(name)
                if failure:
                    raise StackError(f"{name} is loaded but does not answer: {failure}")
        except StackError:
            if is_alive(state):
                self.unload(name)
            raise
        return name

    def failure(self, release: str) -> str | None:
        """What a loaded release says to a request that lacks every feature; None if it answers."""
        request = RerankRequest(request_id="probe", user="", candidates=(Candidate(item="probe"),))
        metrics = RerankMetrics(CollectorRegistry())  # a probe is no traffic
        with RerankClient(
            self.state().grpc_url, release, deadline_ms=1000 * PROBE_S, metrics=metrics
        ) as client:
            return client.rerank(request).error

    def load_model(self, model: str) -> None:
        """Load one model that lies in the served repository; an ensemble brings its steps."""
        self._call(self.state(), lambda client: client.load_model(model, client_timeout=LOAD_S))

    def unload(self, release: str) -> None:
        """Take a release out of service, the ensemble first, and wait until it is gone."""
        self.unload_models(models_of(release, self.home.repository)[::-1])

    def unload_models(self, models: Sequence[str]) -> None:
        """Take models out of service and of the served repository, and wait until they are gone."""
        state = self.state()
        for model in models:
            self._call(state, lambda client, model=model: client.unload_model(model))
            if (link := self.home.repository / model).is_symlink():
                link.unlink()  # a copy was made by somebody else, who takes it out
        give_up = time.monotonic() + LOAD_S
        while set(self.models()) & set(models):
            if time.monotonic() > give_up:
                raise StackError(f"{', '.join(models)}: not unloaded after {LOAD_S:g} s")
            time.sleep(_POLL_S)

    def releases(self) -> list[str]:
        """Names of the releases whose ensemble is loaded."""
        names = [model.removeprefix("gref_") for model in self.models()]
        return [name for name in names if RELEASE_NAME.match(name)]

    def models(self) -> list[str]:
        """Names of the models that are ready."""
        index = self._call(self.state(), lambda c: c.get_model_repository_index())
        return sorted(model.name for model in index.models if model.state == "READY")

    def log_tail(self, lines: int = 25) -> str:
        return log_tail(self.home.log, lines)

    def _call(self, state: StackState, call):  # type: ignore[no-untyped-def]
        with triton.InferenceServerClient(state.grpc_url) as client:
            try:
                return call(client)
            except InferenceServerException as error:
                if not is_alive(state):
                    raise _crashed(state) from error
                raise StackError(f"Triton refused: {error.message()}") from error

    def _wait_ready(self, state: StackState, start_s: float) -> None:
        give_up = time.monotonic() + start_s
        with triton.InferenceServerClient(state.grpc_url) as client:
            while True:
                if self._process is not None:
                    self._process.poll()
                if not is_alive(state):
                    raise _crashed(state)
                try:
                    if client.is_server_ready(client_timeout=1.0):
                        return
                except InferenceServerException:
                    pass  # it does not listen yet
                if time.monotonic() > give_up:
                    raise StackError(
                        f"Triton (pid {state.pid}) was not ready after {start_s:g} s; "
                        f"the end of {state.log}:\n{log_tail(Path(state.log))}"
                    )
                time.sleep(_POLL_S)

    def _forget(self, state: StackState) -> None:
        stop(state, self._process, STOP_S)
        self.home.state.unlink(missing_ok=True)
        self._clear_links()
        self._process = None

    def _clear_links(self) -> None:
        shutil.rmtree(self.home.repository, ignore_errors=True)


def _crashed(state: StackState) -> TritonCrashedError:
    return TritonCrashedError(
        f"Triton (pid {state.pid}) ended by itself; the end of {state.log}:\n"
        f"{log_tail(Path(state.log))}"
    )

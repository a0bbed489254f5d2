"""The local TorchServe as an object: up with a release, token, status, down."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from contracts.locking import one_at_a_time
from contracts.reading import read_json, write_json
from contracts.torchserve import TorchServeSettings, archive_name
from deploy.torchserve_process import (
    ServerSettings,
    TorchServePorts,
    TorchServeState,
    call,
    choose_ports,
    is_alive,
    properties,
    server_command,
    server_environment,
    stop,
)
from deploy.torchserve_tokens import KeyFile
from deploy.triton_install import ROOT, StackError
from deploy.triton_process import log_tail, start_ticks
from handlers.archive import make_archive

DEFAULT_HOME = ROOT / ".local" / "torchserve"
START_S, STOP_S = 120.0, 15.0
_POLL_S = 0.1
#: A port chosen as free can be taken before TorchServe binds it; then others are chosen.
_START_ATTEMPTS, _TAKEN = 3, "Address already in use"
#: What the log says of a worker whose handler refused the release.
_DIED = "Backend worker process died"
_CAUSE = re.compile(r"MODEL_LOG - ((?:\w+\.)*\w*(?:Error|Exception)\b.*)")


class LocalTorchServe:
    """One TorchServe on this machine that serves one release, known by its home folder.

    As a context manager it is up inside and down after, whatever happens between.
    """

    def __init__(
        self,
        home: Path = DEFAULT_HOME,
        release: Path | None = None,
        *,
        ports: TorchServePorts | None = None,
        worker: TorchServeSettings | None = None,
        server: ServerSettings | None = None,
    ) -> None:
        self.home = home.resolve()
        self.logs = self.home / "logs"
        self._release = release
        self._ports = ports or TorchServePorts()
        self._worker = worker or TorchServeSettings()
        self._server = server or ServerSettings()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalTorchServe:
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def up(self, start_s: float = START_S) -> TorchServeState:
        """Archive the release, start TorchServe unless it runs, wait until a worker is ready.

        Raises:
            ContractError: the release is damaged or has engines that do not run here.
            StackError: it serves another release, could not be started, ended, or its worker
                refused the archive; the message says why.
        """
        if self._release is None:
            raise StackError("no release to serve; name its folder")
        with one_at_a_time(self.home / "lock"):
            state = self._read_state()
            if state is not None and is_alive(state):
                if state.release != self._release.name:
                    raise StackError(
                        f"TorchServe serves {state.release} here; stop it first: "
                        "python deploy/local.py torchserve down"
                    )
                self._wait_ready(state, start_s)
                return state
            if state is not None:
                stop(state, self._process, STOP_S)  # clears what a crash left behind
            archive = make_archive(self._release, self.home / "model_store", self._worker)
            for attempt in range(_START_ATTEMPTS):
                state = self._start(archive)
                try:
                    self._wait_ready(state, start_s)
                    return state
                except BaseException as error:
                    self._forget(state)
                    if _TAKEN not in str(error) or attempt + 1 == _START_ATTEMPTS:
                        raise
            raise AssertionError("the last attempt returns or raises")

    def down(self) -> bool:
        """Stop what ``up`` started; False if nothing ran."""
        with one_at_a_time(self.home / "lock"):
            state = self._read_state()
            if state is None:
                return False
            ran = is_alive(state)
            self._forget(state)
            return ran

    def state(self) -> TorchServeState:
        """What runs, and where it can be reached.

        Raises:
            StackError: nothing does; after a crash the message holds the end of the log.
        """
        if self._process is not None:
            self._process.poll()
        state = self._read_state()
        if state is None:
            raise StackError("TorchServe is not running; python deploy/local.py torchserve up")
        if not is_alive(state):
            raise StackError(f"TorchServe (pid {state.pid}) ended by itself; {self.log_tail()}")
        return state

    def token(self) -> str:
        """The token that inference asks for, renewed where it is about to expire.

        Raises:
            StackError: TorchServe does not run, or does not renew it.
        """
        return self._keys(self.state()).token("inference")

    def renew(self) -> str:
        """A fresh token for inference; the old one ends at once. Raises as ``token`` does."""
        return self._keys(self.state()).renew("inference")

    def workers(self) -> list[str]:
        """States of the model's workers, for instance READY."""
        state = self.state()
        status, body = call(
            state.ports.management,
            "GET",
            f"/models/{state.model}",
            self._keys(state).token("management"),
        )
        if status != 200:
            raise StackError(f"TorchServe does not describe {state.model}: {status} {body!r}")
        return [worker["status"] for worker in json.loads(body)[0]["workers"]]

    def log_tail(self, lines: int = 25) -> str:
        """The end of the handler's log and of the server's own."""
        names = (self.logs / "model_log.log", self.home / "torchserve.log")
        return "\n".join(f"{name}:\n{log_tail(name, lines)}" for name in names)

    @property
    def key_file(self) -> Path:
        """TorchServe writes its tokens here, for the owner's eyes alone."""
        return self.home / "key_file.json"

    def _keys(self, state: TorchServeState) -> KeyFile:
        return KeyFile(self.key_file, state.ports.management)

    def _start(self, archive: Path) -> TorchServeState:
        ports = choose_ports(self._ports)
        # A worker's socket lies in it, and a socket's path holds 107 letters at most.
        scratch = Path(tempfile.mkdtemp(prefix="gref-ts-"))
        self.key_file.unlink(missing_ok=True)
        for earlier in [*self.logs.glob("*.log"), self.home / "torchserve.log"]:
            if earlier.exists():
                earlier.replace(earlier.with_suffix(".log.1"))
        configuration = properties(ports, archive.parent, self._server)
        (self.home / "config.properties").write_text(configuration, encoding="utf-8")
        with (self.home / "torchserve.log").open("wb") as log:
            self._process = subprocess.Popen(
                server_command(self.home, scratch, archive, self._server),
                cwd=self.home,  # the key file is written there
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=server_environment(self.logs),
                start_new_session=True,  # a Ctrl-C meant for the caller does not stop the server
            )
        assert self._release is not None
        state = TorchServeState(
            pid=self._process.pid,
            start_ticks=start_ticks(self._process.pid) or 0,
            ports=ports,
            release=self._release.name,
            model=archive_name(self._release.name),
            scratch=str(scratch),
        )
        staging = self._state_file.with_suffix(".tmp")
        write_json(staging, state)
        staging.replace(self._state_file)
        return state

    def _wait_ready(self, state: TorchServeState, start_s: float) -> None:
        give_up = time.monotonic() + start_s
        while True:
            self.state()  # raises where it ended
            try:
                if "READY" in self.workers():
                    return
            except (OSError, http.client.HTTPException, StackError):
                pass  # it does not listen yet, or has no key file yet
            if causes := self._refusal():
                raise StackError(f"TorchServe's worker did not load the model: {causes}")
            if time.monotonic() > give_up:
                raise StackError(f"no worker was ready after {start_s:g} s; {self.log_tail()}")
            time.sleep(_POLL_S)

    def _refusal(self) -> str:
        """Why a worker ended while it loaded the model; "" if none did."""
        log = self.logs / "model_log.log"
        if not log.exists() or _DIED not in log.read_text(errors="replace"):
            return ""
        time.sleep(5 * _POLL_S)  # the end of the traceback is on its way
        causes = dict.fromkeys(_CAUSE.findall(log.read_text(errors="replace")))
        return "; ".join(causes) or self.log_tail()

    @property
    def _state_file(self) -> Path:
        return self.home / "state.json"

    def _read_state(self) -> TorchServeState | None:
        if not self._state_file.exists():
            return None
        return read_json(self._state_file, TorchServeState)

    def _forget(self, state: TorchServeState) -> None:
        stop(state, self._process, STOP_S)
        self._state_file.unlink(missing_ok=True)
        self.key_file.unlink(missing_ok=True)
        self._process = None

"""An S3 on this machine, for tests and the demo: moto's server. It forgets all when it ends."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from deploy.child_process import free_port, start_child, stop_child, wait_answering
from deploy.triton_install import StackError
from deploy.triton_process import LOCALHOST

START_S = 60.0
#: moto takes any name and key; clients insist on having some.
_KEY = "local"
_REGION = "us-east-1"


class LocalS3:
    """One S3 server process; as a context manager it runs inside and is gone after.

    Attributes:
        process: the running server, None before ``start``.
    """

    def __init__(self, home: Path, *, port: int = 0) -> None:
        """Describe a server; nothing runs yet.

        Args:
            home: folder of its log, ``s3.log``. Its objects are in memory.
            port: 0 takes any free one.
        """
        self.log = home / "s3.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._port = port

    @property
    def endpoint(self) -> str:
        """The URL for clients; known from the first start on."""
        assert self._port, "start the server first, or name a port"
        return f"http://{LOCALHOST}:{self._port}"

    def start(self) -> None:
        """Start the server and wait until it answers. Harmless when it runs.

        Raises:
            StackError: it ended by itself, or did not answer in time.
        """
        if self.process is not None and self.process.poll() is None:
            return
        self._port = self._port or free_port()
        command = [sys.executable, "-m", "moto.server", "-H", LOCALHOST, "-p", str(self._port)]
        self.process = start_child(command, self.log, {})
        try:
            wait_answering(self.process, self.log, self._answers, START_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server; its objects go with it."""
        stop_child(self.process)

    def create_bucket(self, name: str) -> None:
        """Make a bucket; harmless when it exists.

        Raises:
            StackError: the server refused.
        """
        status, answer = self._request("PUT", f"/{name}")
        if status != 200:
            raise StackError(f"bucket {name} was not made: {status} {answer[:300]!r}")

    def storage_options(self) -> dict[str, str]:
        """What deltalake must be told to keep a table in a bucket of this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_REGION": _REGION,
            "AWS_ALLOW_HTTP": "true",
            # Two writers of one version: S3 itself refuses the second (If-None-Match).
            "conditional_put": "etag",
        }

    def environment(self) -> dict[str, str]:
        """Environment of a process that keeps things here, for instance ``LocalBroker``."""
        return {
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_REGION": _REGION,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_ALLOW_HTTP": "true",
        }

    def __enter__(self) -> LocalS3:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            return self._request("GET", "/")[0] == 200
        except OSError:
            return False

    def _request(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOCALHOST, self._port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

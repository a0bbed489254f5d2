"""A real Chromium without a window, driven through a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

_WAIT_S = 60.0
#: Complaints of these kinds count as errors of the page.
_COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


def chromium() -> str:
    """The browser; without one the test is skipped, which CI takes for a failure."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")


class Browser:
    """One page at a time.

    Attributes:
        complaints: of the page that is open: exceptions, console messages, refused resources.
        requests: addresses that it asked for.
    """

    def __init__(self, folder: Path) -> None:
        profile = folder / "profile"
        profile.mkdir(parents=True)
        mine_in, its_out = os.pipe()
        its_in, mine_out = os.pipe()
        flags = ["--headless", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update"]
        flags += ["--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        # Chromium reads from descriptor 3 and writes to 4.
        script = f'exec 3<&{its_in} 4>&{its_out}; exec "$0" "$@"'
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            ["bash", "-c", script, chromium(), *flags, f"--user-data-dir={profile}"],
            pass_fds=(its_in, its_out),
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "HOME": str(folder)},
        )
        os.close(its_in)
        os.close(its_out)
        self._in = os.fdopen(mine_in, "rb", buffering=0)
        self._out = os.fdopen(mine_out, "wb", buffering=0)
        self._rest, self._number = b"", 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._out.close()  # it ends when its pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._in.close()
        self._log.close()

    def open(self, path: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a file in a window of that size and colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self._events.clear()
        self.complaints.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        give_up = time.monotonic() + _WAIT_S
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._take(self._read(give_up))
        # Whatever the load set off has been told by the time that this is answered.
        self.call(
            "Runtime.evaluate",
            expression="new Promise(done => setTimeout(done, 50))",
            awaitPromise=True,
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """The whole page as PNG, or its top."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "scale": 1}
        clip["height"] = min(size["height"], height or size["height"])
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol; its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        give_up = time.monotonic() + _WAIT_S
        while True:
            answer = self._read(give_up)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer}"
                result: dict[str, Any] = answer["result"]
                return result
            self._take(answer)

    def _read(self, give_up: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert time.monotonic() < give_up, "Chromium does not answer"
            more = self._in.read(1 << 16)
            assert more, f"Chromium ended: {Path(self._log.name).read_text(errors='replace')}"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    def _take(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        if event.get("method") in _COMPLAINTS:
            self.complaints.append(json.dumps(event["params"]))
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])

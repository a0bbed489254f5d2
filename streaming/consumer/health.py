"""One port for Prometheus (/metrics) and for probes (/healthz, /readyz)."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

#: The loop turns several times a second; a commit that is tried again takes longest.
STALE_S = 180.0


class Health:
    """What the loop tells and the probes ask.

    Attributes:
        not_ready: why no work is done at present; "" while it is.
    """

    def __init__(self) -> None:
        self.not_ready = "has not joined the group yet"
        self._turned = time.monotonic()

    def turn(self) -> None:
        """The loop has come round."""
        self._turned = time.monotonic()

    @property
    def stale_s(self) -> float:
        """Seconds since the loop came round."""
        return time.monotonic() - self._turned


class HealthServer:
    """Serves metrics and probes from a thread of its own until ``close``."""

    def __init__(
        self, health: Health, registry: CollectorRegistry, port: int, host: str = ""
    ) -> None:
        """Listen; port 0 takes a free one. Raises OSError where the port is taken."""
        self._server = ThreadingHTTPServer((host, port), _handler(health, registry))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(health: Health, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path == "/healthz":
                stale = health.stale_s
                text = "ok" if stale < STALE_S else f"the loop stands still for {stale:.0f} s"
                self._answer(200 if stale < STALE_S else 503, text.encode())
            elif path == "/readyz":
                text = health.not_ready
                self._answer(503 if text else 200, (text or "ok").encode())
            else:
                self._answer(404, b"allowed: /metrics, /healthz, /readyz")

        def log_message(self, format: str, *args: Any) -> None:
            """Probes come every few seconds; the log is for what happens."""

        def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler

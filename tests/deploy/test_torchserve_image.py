"""The TorchServe of the image, for real: its own properties, archives by argument, and its probe.

Java and TorchServe are this machine's; ports and folders are replaced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.cluster.rendering import KUBERNETES
from deploy.torchserve_process import (
    ServerSettings,
    TorchServePorts,
    choose_ports,
    server_command,
    server_environment,
)
from handlers.archive import make_archive
from tests.serving.processes import wait_until
from tests.serving.toy_engines import write_toy_engines
from training.release.publishing import publish

IMAGES = KUBERNETES.parent / "images"


@dataclass
class Server:
    folder: Path
    ports: TorchServePorts

    def probe(self, model: str = "gref_r0001") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", str(IMAGES / "torchserve_probe.py"), f"--model={model}"]
            + [f"--url=http://127.0.0.1:{self.ports.inference}", "--timeout=30"],
            capture_output=True,
            text=True,
            check=False,
        )

    def status(self, port: int, path: str, body: bytes | None = None) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("torchserve")
    release = publish(write_toy_engines(folder / "engines"), folder / "releases")
    archive = make_archive(release, folder / "model_store")
    ports = choose_ports(TorchServePorts())
    text = (IMAGES / "torchserve.properties").read_text()
    for given, here in (
        (":8080", f":{ports.inference}"),
        ("=7070", f"={ports.grpc}"),
        (":8081", f":{ports.management}"),
        ("=7071", f"={ports.grpc_management}"),
        (":8082", f":{ports.metrics}"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 (a test listens to nobody else)
        ("/model_store", str(folder / "model_store")),
    ):
        assert given in text
        text = text.replace(given, here)
    (folder / "config.properties").write_text(text)
    scratch = folder / "tmp"
    scratch.mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            server_command(folder, scratch, archive, ServerSettings()),
            cwd=scratch,
            env=server_environment(scratch / "logs"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    one = Server(folder, ports)
    try:
        wait_until(
            lambda: process.poll() is not None or one.probe().returncode == 0,
            f"TorchServe gives a list; its log is {folder / 'log'}",
            120,
        )
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        yield one
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: the server and its workers
        process.wait()


def test_it_serves_without_a_token_and_takes_no_models(server: Server) -> None:
    assert server.probe().returncode == 0
    ports = server.ports
    assert server.status(ports.inference, "/ping") == 200
    assert server.status(ports.metrics, "/metrics") == 200
    for path in ("/models?url=x.mar", "/models/gref_r0001?min_worker=0"):
        assert server.status(ports.management, path, b"") == 405
        assert server.status(ports.inference, path, b"") in (404, 405)


def test_the_probe_says_no(server: Server) -> None:
    done = server.probe("gref_r0009")
    assert done.returncode == 1
    assert "404" in done.stdout
    gone = Server(server.folder, choose_ports(TorchServePorts()))
    assert "no answer" in gone.probe().stdout

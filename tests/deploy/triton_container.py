"""The manifest's Triton as a process of this machine.

What stands in for the container: folders of a test for its mounts, free ports on the loopback
address, and the options by which the wheel's Triton finds its python backend.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster.rendering import KUBERNETES, Object
from deploy.triton_install import assemble_backends, find_triton, server_environment
from deploy.triton_process import Ports, choose_ports
from tests.serving.processes import children, wait_until

IMAGES = KUBERNETES.parent / "images"
KEY = "a-key-of-this-test"


@dataclass
class Container:
    """A container's spec, and where its mounts and ports are here."""

    folder: Path
    ports: Ports
    spec: Object

    def words(self, words: list[str]) -> list[str]:
        """Words of the manifest with its mounts, ports and secrets replaced by this machine's."""
        ports = {"8000": self.ports.http, "8001": self.ports.grpc, "8002": self.ports.metrics}
        given = []
        for word in words:
            word = word.replace("/models", str(self.folder / "models"))
            word = re.sub(r"=/routing/", f"={self.folder}/routing/", word)
            word = re.sub(r"=/etc/gref/", f"={self.folder}/etc/gref/", word)
            word = word.replace("/opt/gref", str(IMAGES)).replace("$(CONTROL_KEY)", KEY)
            port = re.fullmatch(r"(--\w+-port=)(\d+)", word)
            given.append(f"{port[1]}{ports[port[2]]}" if port else word)
        return given

    def probe(self, kind: str, *more: str) -> subprocess.CompletedProcess[str]:
        """What the kubelet would run, Python without site-packages: the image's has none."""
        command = self.words(self.spec[kind]["exec"]["command"])
        assert command[0] == "python3"
        url = f"--url=http://127.0.0.1:{self.ports.http}"
        return subprocess.run(
            [sys.executable, "-I", "-S", *command[1:], url, *more],
            capture_output=True,
            text=True,
            timeout=self.spec[kind]["timeoutSeconds"] * 6,  # a machine that is busy with others
            check=False,
        )

    def http(self, path: str, body: bytes | None = None) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports.http}{path}", data=body, method="POST" if body else "GET"
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


def write_routing(folder: Path, champion: str, *arms: str) -> None:
    """Switch a folder's routing.json, as far as the image reads it."""
    experiment = {"arms": [{"name": f"a{n}", "release": arm} for n, arm in enumerate(arms)]}
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / "routing.new"
    staging.write_text(
        json.dumps({"version": 1, "champion": champion, "experiments": [experiment]})
    )
    staging.replace(folder / "routing.json")


@contextmanager
def running(folder: Path, spec: Object) -> Iterator[tuple[Container, subprocess.Popen[bytes]]]:
    """Start it as its image does and wait until its own startup probe says yes.

    ``folder/models`` holds what it serves, and ``folder`` its routing as the container mounts it.
    """
    pod = Container(folder, choose_ports(Ports()), spec)
    files = find_triton()
    prefix = f"gref_pod_{os.getpid()}_"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(IMAGES / "triton_start.py")),
                f"--server={files.binary}",
                *pod.words(spec["args"]),
                f"--backend-directory={assemble_backends(files, folder / 'backends')}",
                f"--backend-config=python,shm-region-prefix-name={prefix}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=server_environment(files),
        )
    try:
        wait_until(
            lambda: process.poll() is not None or pod.probe("startupProbe").returncode == 0,
            f"Triton answers; its log is {folder / 'log'}",
            120,
        )
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        yield pod, process
    finally:
        # By force: Triton waits long for engines that a test has killed.
        for pid in (*children(process.pid), process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        for left in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108
            left.unlink(missing_ok=True)

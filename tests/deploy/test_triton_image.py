"""The Triton of the manifests, for real: its own options and probes, on this machine's Triton."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from contracts.routing import Routing
from deploy.cluster.rendering import Object, containers, pod_template
from deploy.control_key import CONTROL_HEADER, CONTROL_VARIABLE
from deploy.images import triton_probe, triton_start
from deploy.rolling.replicas import Replica, ReplicaError
from deploy.triton_process import Ports, choose_ports
from handlers.client import RerankClient
from tests.deploy.conftest import find
from tests.deploy.triton_container import IMAGES, KEY, Container, running, write_routing
from tests.serving.processes import children, wait_until
from tests.serving.toy_engines import toy_request, write_toy_engines
from training.release.installing import install
from training.release.publishing import publish

HEADER = {CONTROL_HEADER: KEY}
Rendered = Callable[[str], list[Object]]
Pod = tuple[Container, subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, rendered: Rendered) -> Iterator[Pod]:
    folder = tmp_path_factory.mktemp("pod")
    install(publish(write_toy_engines(folder / "engines"), folder / "releases"), folder / "models")
    # r0009 is nowhere: it must not keep r0001 from serving.
    write_routing(folder / "etc" / "gref" / "routing", "r0001", "champion", "r0009")
    template = pod_template(find(rendered("production-gpu"), "Deployment", "gref-triton"))
    assert template is not None
    with running(folder, containers(template["spec"])[0]) as pod:
        yield pod


def test_it_serves_and_the_probes_agree(container: Pod) -> None:
    pod, _ = container
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        done = pod.probe(kind)
        assert done.returncode == 0, done.stdout + done.stderr
    with RerankClient(f"127.0.0.1:{pod.ports.grpc}", "r0001", deadline_ms=60_000) as client:
        assert client.rerank(toy_request(1)).fallback is None
    log = (pod.folder / "log").read_text(errors="replace")
    assert "so not loaded: gref_r0009" in log
    assert f"HTTPService at 127.0.0.1:{pod.ports.http}" in log, "HTTP is for the probes alone"


def test_control_of_models_needs_the_key(container: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod, _ = container
    with triton.InferenceServerClient(f"127.0.0.1:{pod.ports.grpc}") as client:
        wrong = {"triton-grpc-protocol-gref-control": "guess"}
        for headers in (None, {"gref-control": KEY}, wrong):
            for call in (
                lambda h: client.get_model_repository_index(headers=h),
                lambda h: client.unload_model("gref_r0001", headers=h),
                lambda h: client.load_model("gref_r0001", headers=h),
                lambda h: client.get_system_shared_memory_status(headers=h),
                lambda h: client.update_log_settings({"log_info": False}, headers=h),
                lambda h: client.get_trace_settings(headers=h),
            ):
                with pytest.raises(InferenceServerException, match="restricted"):
                    call(headers)
        index = client.get_model_repository_index(headers=HEADER)
        assert "gref_r0001" in [model.name for model in index.models]
    replica = Replica(f"127.0.0.1:{pod.ports.grpc}")
    with pytest.raises(ReplicaError, match="restricted"):
        replica.loaded()
    replica.close()
    monkeypatch.setenv(CONTROL_VARIABLE, KEY)
    replica = Replica(f"127.0.0.1:{pod.ports.grpc}")
    assert replica.loaded() == ("r0001",)
    replica.close()
    for path in ("/v2/repository/index", "/v2/repository/models/gref_r0001/unload"):
        assert pod.http(path, b"{}") == 403
    assert pod.probe("readinessProbe").returncode == 0


def test_a_routing_that_is_ahead_takes_nobody_out(container: Pod) -> None:
    """The champion of a new routing is not loaded here yet."""
    pod, _ = container
    volume = pod.folder / "routing"  # its file comes before git's
    try:
        write_routing(volume, "r0009", "r0001")
        ready, live = pod.probe("readinessProbe"), pod.probe("livenessProbe")
        assert ready.returncode == 0, ready.stdout
        assert "r0009 is not loaded here; r0001 answers" in ready.stdout
        assert live.returncode == 0, live.stdout
        write_routing(volume, "r0009")
        assert pod.probe("readinessProbe").returncode == 1, "nothing here can answer"
        assert pod.probe("livenessProbe").returncode == 0, "starting anew would not help"
        (volume / "routing.json").write_text('{"version": 1, "cham')
        damaged = pod.probe("readinessProbe")
        assert damaged.returncode == 0, "git's is next"
        assert "passed over" in damaged.stdout
    finally:
        (volume / "routing.json").unlink()


def test_metrics_that_the_autoscaler_asks_for_are_there(container: Pod) -> None:
    pod, _ = container
    with urllib.request.urlopen(f"http://127.0.0.1:{pod.ports.metrics}/metrics") as response:
        shown = response.read().decode()
    for part in ("encoder", "decoder"):
        for name in ("nv_inference_queue_duration_us", "nv_inference_request_success"):
            assert re.search(rf'^{name}{{model="gref_r0001_{part}"', shown, re.MULTILINE), name


def test_a_dead_engine_is_noticed_although_triton_calls_it_ready(container: Pod) -> None:
    """Last of this file: Triton does not start the engine again."""
    pod, process = container
    engines = [
        pid
        for pid, command in children(process.pid).items()
        if "triton_python_backend_stub" in command and "decoder" in command
    ]
    assert engines
    for pid in engines:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pod.probe("readinessProbe").returncode == 1, "the dead engine is noticed")
    assert pod.http("/v2/health/ready") == 200, "which is why the probes ask a question"
    assert pod.http("/v2/models/gref_r0001/ready") == 200
    done = pod.probe("livenessProbe")
    assert done.returncode == 1, done.stdout


def test_a_server_that_is_gone_is_not_alive(tmp_path: Path) -> None:
    free = choose_ports(Ports()).http
    for question in ("ready", "live"):
        done = subprocess.run(
            [sys.executable, str(IMAGES / "triton_probe.py"), question, "--release=r0001"]
            + [f"--url=http://127.0.0.1:{free}", "--timeout=2"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "no answer" in done.stdout


def test_it_does_not_start_without_a_champion(tmp_path: Path) -> None:
    start = [sys.executable, str(IMAGES / "triton_start.py"), f"--repository={tmp_path}"]
    routing = tmp_path / "routing.json"
    for text, words in (
        (None, "no routing can be read"),
        ("{", "no routing can be read"),
        ('{"version": 1}', "no routing can be read"),
        ('{"version": 1, "champion": "r0001"}', "holds no gref_r0001, the champion"),
    ):
        if text is not None:
            routing.write_text(text)
        done = subprocess.run(
            [*start, f"--routing={routing}", "--", "--x"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert words in done.stderr


def test_what_starts_is_what_the_client_is_routed_to(tmp_path: Path) -> None:
    """The two readings of routing.json, the image's and the contract's, agree."""
    metric = {"name": "clicks", "kind": "click"}
    arms = [
        {"name": "control", "release": "champion", "weight": 0.5},
        {"name": "new", "release": "r0012", "weight": 0.3, "ceiling": 0.4},
        {"name": "old", "release": "r0002", "weight": 0.2, "ceiling": 0.3},
    ]
    experiment = {"name": "e", "salt": "s", "state": "running", "arms": arms, "primary": metric}
    routing = {
        "champion": "r0007",
        "experiments": [{**experiment, "started": "2026-03-01T09:00:00+00:00"}],
    }
    expected = msgspec.convert(routing, Routing).releases
    assert set(triton_start.releases_of(routing)) == set(expected)
    assert triton_start.releases_of(routing)[0] == "r0007"
    file = tmp_path / "routing.json"
    file.write_text(json.dumps(routing))
    assert triton_probe.releases_of([tmp_path / "none", file]) == triton_start.releases_of(routing)

"""Command lines in the manifests, held against what the programs really take."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from contracts.features import FeatureSpec
from contracts.reading import read_yaml
from deploy.cluster.rendering import KUBERNETES, Object, containers, pod_template
from deploy.triton_install import find_triton, server_environment
from deploy.triton_process import Ports, server_command
from tests.deploy.conftest import NAMES, find

ROOT = KUBERNETES.parents[1]
IMAGES = ROOT / "deploy" / "images"
Rendered = Callable[[str], list[Object]]


def workloads(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for one in objects:
        template = pod_template(one)
        for container in containers(template["spec"]) if template else ():
            yield one["metadata"]["name"], container


def resolved(objects: list[Object], container: Object) -> list[str]:
    """The command line with $(NAME) replaced, as the kubelet does; an unknown name stays."""
    values = {one["name"]: one.get("value", "secret") for one in container.get("env", ())}
    for source in container.get("envFrom", ()):
        if name := source.get("configMapRef", {}).get("name"):
            values |= find(objects, "ConfigMap", name)["data"]
    words = [*container.get("command", ()), *container.get("args", ())]
    return [re.sub(r"\$\((\w+)\)", lambda m: values.get(m[1], m[0]), word) for word in words]


def parse(script: str, words: list[str]) -> dict[str, Any]:
    """Let the program's own parser read a command line, without running it."""
    module = import_module(script.removesuffix(".py").replace("/", "."))
    command: Any = typer.main.get_command(module.app)
    if hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    with command.make_context(script, list(words)) as context:
        return dict(context.params)


@pytest.mark.parametrize("name", NAMES)
def test_our_programs_take_their_command_lines(rendered: Rendered, name: str) -> None:
    objects = rendered(name)
    seen = {}
    for workload, container in workloads(objects):
        words = resolved(objects, container)
        assert not [word for word in words if "$(" in word], f"{workload}: {words}"
        if words[0] != "python":
            continue
        assert (ROOT / words[1]).is_file()
        seen[workload] = parse(words[1], words[2:])
    if name != "canary-by-header":
        assert {"gref-consumer", "gref-refresh", "gref-compact"} <= set(seen)
        assert ("gref-watch" in seen) == (name != "torchserve"), "TorchServe has no such control"
        assert seen["gref-consumer"]["table"] == seen["gref-refresh"]["feedback"]
        assert seen["gref-refresh"]["promote"] is False, "promotion is an experiment's business"


def test_the_parser_would_refuse_what_is_wrong() -> None:
    good = ["--feedback=a", "--releases=b", "--repository=c"]
    parse("training/refresh.py", good)
    with pytest.raises(Exception, match=r"(?i)no such option"):
        parse("training/refresh.py", [*good, "--promot"])
    with pytest.raises(Exception, match=r"(?i)missing parameter"):
        parse("training/refresh.py", good[1:])


@pytest.fixture(scope="module")
def triton_options() -> set[str]:
    """Every option of the real tritonserver."""
    files = find_triton()
    done = subprocess.run(
        [str(files.binary), "--help"],
        env=server_environment(files),
        capture_output=True,
        text=True,
        check=False,
    )
    found = set(re.findall(r"^\s+(--[a-z0-9-]+)", done.stdout + done.stderr, re.MULTILINE))
    assert len(found) > 50
    return found


@pytest.mark.parametrize("name", [name for name in NAMES if name != "torchserve"])
def test_tritons_options_are_the_servers(
    rendered: Rendered, triton_options: set[str], name: str
) -> None:
    objects = rendered(name)
    for workload, container in workloads(objects):
        if not workload.startswith("gref-triton"):
            continue
        words = container["args"][container["args"].index("--") + 1 :]
        options = {word.partition("=")[0] for word in words}
        assert options <= triton_options, options - triton_options
        # What the local stack has found to be needed, but for what is this machine's.
        local = server_command(Path("t"), Path("m"), Path("b"), Ports())
        needed = {word for word in local[1:] if not re.search(r"port|address|backend|repo", word)}
        missing = {word.partition("=")[0] for word in needed} - options
        assert not missing


def test_torchserves_properties_are_those_of_the_local_stack() -> None:
    from deploy.torchserve_process import ServerSettings, TorchServePorts, properties

    text = (IMAGES / "torchserve.properties").read_text()
    ours = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    local = dict(
        line.split("=", 1)
        for line in properties(
            TorchServePorts(), Path("/model_store"), ServerSettings()
        ).splitlines()
    )
    differ = {key for key in ours.keys() | local.keys() if ours.get(key) != local.get(key)}
    reach = {key for key in local if "address" in key or key.endswith("port")}
    assert differ <= {*reach, "disable_token_authorization", "token_expiration_min"}
    for key in ("management_address", "grpc_management_address"):
        assert "127.0.0.1" in ours[key]


def test_torchserves_image_starts_java_as_the_local_stack_does() -> None:
    from deploy.torchserve_process import ServerSettings, server_command

    text = (IMAGES / "torchserve.Dockerfile").read_text()
    entry = yaml.safe_load(text.partition("ENTRYPOINT ")[2].replace("\\\n", ""))
    local = server_command(Path("/h"), Path("/s"), Path("/m/a.mar"), ServerSettings())
    for word in ("org.pytorch.serve.ModelServer", "--python", "-f", "-s", "-ncs", "-Xmx512m"):
        assert word in entry
        assert word in local
    assert "-m" in local
    python = re.search(r"PYTHON_TAG=(\d+\.\d+)\.", text)
    assert python
    assert f"python{python[1]}/site-packages/ts/frontend/*" in " ".join(entry)


def test_the_example_of_a_feature_spec_is_one() -> None:
    read_yaml(KUBERNETES / "base" / "consumer" / "features.yaml", FeatureSpec)


@pytest.mark.parametrize("script", ["triton_start.py", "triton_probe.py", "torchserve_probe.py"])
def test_scripts_of_the_images_need_python_alone(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(IMAGES / script), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

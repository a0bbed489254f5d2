"""compose.yaml: valid by the compose specification, and true to the parts that it puts together.

It is not run here: there is no container engine. ``docker compose config`` would say what the first
test says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from contracts.events import DEAD_LETTERS, EXPOSURES, FEEDBACK
from deploy.cluster.rendering import KUBERNETES, containers, pod_template, render
from tests.deploy.conftest import find
from tests.deploy.test_commands import parse
from tests.deploy.test_images import of

ROOT = KUBERNETES.parents[1]
FILE = ROOT / "deploy" / "compose.yaml"
ENVIRONMENT = ROOT / "deploy" / "compose" / "example.env"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-+?])([^}]*))?\}")
#: Jobs end by themselves; all else must say whether it is well.
JOBS = {"kafka-topics", "bucket", "refresh", "rollout"}
#: Made by the commands of docs/images.md before the first start.
MADE_BEFORE = ("releases", "model_repository/served", ".local/routing", ".local/textfiles")


def interpolated(text: str, values: dict[str, str]) -> str:
    """``${NAME}`` and its forms ``:-``, ``:+`` and ``:?``, as compose replaces them."""

    def replace(match: re.Match[str]) -> str:
        name, form, words = match.groups()
        value = values.get(name, "")
        if form == "+":
            return interpolated(words.replace(f"${name}", "${" + name + "}"), values) * bool(value)
        if form == "?" and not value:
            raise KeyError(name)
        return value or (words if form == "-" else "")

    return VARIABLE.sub(replace, text)


DIGEST = "sha256:" + "0" * 64


def names_of_environment() -> list[str]:
    return re.findall(r"^(\w+)=", ENVIRONMENT.read_text(), re.MULTILINE)


def stack(**values: str) -> dict[str, Any]:
    filled = {
        name: DIGEST if name.endswith("DIGEST") else f"{name.lower()}-value"
        for name in names_of_environment()
    }
    numbers = {"USER_ID": "1000", "GROUP_ID": "1000"}
    text = interpolated(FILE.read_text(), {**filled, **numbers, **values})
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


SERVICES = stack()["services"]


def validated(parsed: dict[str, Any]) -> PyCompose:
    """By compose_spec, which knows a tag or a digest, but not the two together as docker does."""
    for service in parsed["services"].values():
        service["image"] = service["image"].partition("@")[0]
    return PyCompose.from_yaml(yaml.safe_dump(parsed))


def test_it_is_valid() -> None:
    found = validated(stack())
    assert set(found.service_names()) == set(SERVICES)
    expected = {"kafka", "minio", "triton", "consumer", "prometheus", "grafana"}
    assert expected <= set(SERVICES)


@pytest.mark.parametrize("spoilt", [{"imag": "x"}, {"ports": ["127.0.0.1:99999:1"]}, {"user": []}])
def test_the_validation_finds_what_is_wrong(spoilt: dict[str, Any]) -> None:
    wrong = stack()
    wrong["services"]["kafka"].update(spoilt)
    with pytest.raises(ValueError, match="kafka"):
        validated(wrong)


def test_without_a_digest_the_tag_counts_but_nothing_is_built() -> None:
    names = [name for name in names_of_environment() if name.endswith("DIGEST")]
    built = {"TRITON_DIGEST", "PYTHON_DIGEST"}
    services = stack(**{name: "" for name in names if name not in built})["services"]
    assert services["kafka"]["image"] == "apache/kafka:4.1.0"
    for name in built:
        with pytest.raises(KeyError, match=name):
            stack(**{name: ""})


def test_nothing_starts_without_the_secrets() -> None:
    for name in names_of_environment():
        if "PASSWORD" in name or "KEY" in name or name == "OBJECT_STORE_USER":
            with pytest.raises(KeyError, match=name):
                stack(**{name: ""})


def test_every_variable_is_in_the_example() -> None:
    used = {match[1] for match in VARIABLE.finditer(FILE.read_text())}
    assert used == set(names_of_environment())
    filled = re.findall(r"^(\w+)=(.+)$", ENVIRONMENT.read_text(), re.MULTILINE)
    assert {name for name, _ in filled} <= {"USER_ID", "GROUP_ID", "PIP_CONF"}, "no secret in git"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_confined_and_seen_to_be_well(name: str) -> None:
    service = SERVICES[name]
    image, _, digest = service["image"].partition("@")
    tag = image.rpartition(":")[2]
    assert re.search(r"\d", tag), image
    assert tag != "latest"
    assert digest == DIGEST or "build" in service
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= set(limits)
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "for this machine alone"
    if name in JOBS:
        assert service["restart"] == "no"
    else:
        built = service.get("build", {}).get("dockerfile")
        assert "healthcheck" in service or of(ROOT / built, "HEALTHCHECK")
        assert service["restart"] == "unless-stopped"


def test_what_is_mounted_and_needed_is_there() -> None:
    parsed = stack()
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if not source.startswith("."):
                assert source in parsed["volumes"], source
                continue
            path = (FILE.parent / source).resolve().relative_to(ROOT).as_posix()
            made = path.startswith(MADE_BEFORE)
            assert made or (ROOT / path).exists(), f"{name} mounts {path}"
        for other, how in service.get("depends_on", {}).items():
            done = how["condition"] == "service_completed_successfully"
            assert done == (other in JOBS), f"{name} waits for {other}"
        assert set(service["networks"]) <= set(parsed["networks"])
        if build := service.get("build"):
            path = ROOT / build["dockerfile"]
            given = {one for one in of(path, "ARG") if "=" not in one}
            assert given == set(build["args"])
            stages = [line.split()[-1] for line in of(path, "FROM")]
            assert build.get("target", stages[-1]) in stages


def test_our_programs_take_their_command_lines() -> None:
    parse("streaming/consume.py", SERVICES["consumer"]["command"])
    script, *words = SERVICES["refresh"]["command"]
    refresh = parse(script, words)
    assert f"--table={refresh['feedback']}" in SERVICES["consumer"]["command"]
    rollout = SERVICES["rollout"]
    assert (ROOT / rollout["entrypoint"][1]).is_file()
    parse(rollout["entrypoint"][1], rollout["command"])


def test_triton_is_started_as_in_kubernetes() -> None:
    template = pod_template(
        find(render(KUBERNETES / "overlays" / "dev"), "Deployment", "gref-triton")
    )
    assert template is not None
    theirs = [word for word in containers(template["spec"])[0]["args"] if "--routing" not in word]
    key = "triton_control_key-value"
    ours = [word for word in SERVICES["triton"]["command"] if "--routing" not in word]
    assert ours == [word.replace("$(CONTROL_KEY)", key) for word in theirs]
    assert SERVICES["rollout"]["environment"]["GREF_TRITON_CONTROL"] == key


def test_names_and_ports_meet() -> None:
    """Prometheus finds its targets, the consumer its broker and store, on a network of both."""
    broker = SERVICES["kafka"]["environment"]
    assert "INSIDE://kafka:19092" in broker["KAFKA_ADVERTISED_LISTENERS"]
    assert "--brokers=kafka:19092" in SERVICES["consumer"]["command"]
    assert SERVICES["kafka-topics"]["environment"]["BROKER"] == "kafka:19092"
    for one, other in (
        ("consumer", "kafka"),
        ("consumer", "minio"),
        ("refresh", "minio"),
        ("rollout", "triton"),
        ("prometheus", "triton"),
        ("prometheus", "consumer"),
        ("prometheus", "textfiles"),
        ("grafana", "prometheus"),
    ):
        assert set(SERVICES[one]["networks"]) & set(SERVICES[other]["networks"]), (one, other)
    prometheus = yaml.safe_load((FILE.parent / "monitoring" / "prometheus.yml").read_text())
    targets = [
        target
        for job in prometheus["scrape_configs"]
        for group in job.get("static_configs", ())
        for target in group["targets"]
    ]
    assert "triton:8002" in targets
    assert "--metrics-port=8002" in SERVICES["triton"]["command"]
    for target in targets:
        assert target.split(":")[0] in {*SERVICES, "localhost"}, target


def test_the_topics_are_those_of_the_events() -> None:
    script = (FILE.parent / "compose" / "topics.sh").read_text()
    lines = {line.split()[1]: line for line in script.splitlines() if line.startswith("topic ")}
    assert set(lines) == {EXPOSURES, FEEDBACK, DEAD_LETTERS}
    size = {
        name: int(re.search(r"max.message.bytes=(\d+)", line)[1])  # type: ignore[index]
        for name, line in lines.items()
    }
    assert size[EXPOSURES] == size[FEEDBACK] >= 1_200_000
    assert size[DEAD_LETTERS] > size[EXPOSURES]
    for name in (EXPOSURES, FEEDBACK):
        assert "LogAppendTime" in lines[name]


def test_the_topics_script_makes_what_it_says(tmp_path: Path) -> None:
    """Run by a shell, with a stand-in for Kafka's command that notes what it is given."""
    import subprocess

    noted = tmp_path / "noted"
    tool = tmp_path / "kafka-topics.sh"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    tool.chmod(0o755)
    script = (FILE.parent / "compose" / "topics.sh").read_text()
    script = script.replace("/opt/kafka/bin/kafka-topics.sh", str(tool))
    subprocess.run(
        ["sh", "-c", script], check=True, env={"BROKER": "kafka:19092", "PARTITIONS": "8"}
    )
    calls = noted.read_text().splitlines()
    assert len(calls) == 3
    assert all("--if-not-exists" in call and "--partitions 8" in call for call in calls)
    assert "--config message.timestamp.type=LogAppendTime --config max.message.bytes" in calls[0]

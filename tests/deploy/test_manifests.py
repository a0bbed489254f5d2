"""``make manifests``: every kustomization renders and is valid, and what is wrong is found."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.reading import read_json
from contracts.routing import Routing
from deploy.cluster.references import reference_faults
from deploy.cluster.rendering import KUBERNETES, Object, containers, pod_template, render
from deploy.cluster.rules import rule_faults
from deploy.cluster.schemas import schema_faults
from tests.deploy.conftest import NAMES, find

ROOT = KUBERNETES.parents[1]
Rendered = Callable[[str], list[Object]]
Spoil = Callable[[list[Object]], Any]


def faults(objects: list[Object]) -> list[str]:
    return [*schema_faults(objects), *rule_faults(objects), *reference_faults(objects)]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "deploy/manifests.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_overlays_that_are_promised_are_there() -> None:
    assert {"dev", "production-gpu", "torchserve", "canary-by-header"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_kustomization_is_valid(rendered: Rendered, name: str) -> None:
    assert not faults(rendered(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_rendering_holds_whole_namespaced_objects(rendered: Rendered, name: str) -> None:
    objects = rendered(name)
    assert {"Deployment", "NetworkPolicy", "ConfigMap"} <= {one["kind"] for one in objects}
    for one in objects:
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "gref", one["metadata"]["name"]


def triton(objects: list[Object]) -> Object:
    return find(objects, "Deployment", "gref-triton")


def pod(objects: list[Object]) -> Object:
    template = pod_template(triton(objects))
    assert template is not None
    return template["spec"]


def container(objects: list[Object]) -> Object:
    return containers(pod(objects))[0]


#: Each spoils what was valid; the words must be in a fault. Here it breaks a schema,
BREAKS_SCHEMA: dict[str, tuple[Spoil, str]] = {
    "unknown field": (lambda o: pod(o).update(restartPolice="Always"), "restartPolice"),
    "wrong type": (lambda o: triton(o)["spec"].update(replicas="three"), "replicas"),
    "unknown kind": (lambda o: o[0].update(kind="Namespaze"), "no such kind"),
    "custom kind": (
        lambda o: find(o, "PodMonitor", "gref")["spec"].update(podMetricsEndpoint=[]),
        "podMetricsEndpoint",
    ),
}
#: here a rule of ours,
BREAKS_RULE: dict[str, tuple[Spoil, str]] = {
    "root": (lambda o: pod(o)["securityContext"].update(runAsUser=0), "runAsUser"),
    "may be root": (lambda o: pod(o)["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
    "writable": (
        lambda o: container(o)["securityContext"].update(readOnlyRootFilesystem=False),
        "readOnlyRootFilesystem",
    ),
    "escalation": (
        lambda o: container(o)["securityContext"].pop("allowPrivilegeEscalation"),
        "allowPrivilegeEscalation",
    ),
    "capability": (
        lambda o: container(o)["securityContext"]["capabilities"].update(add=["NET_RAW"]),
        "capabilities",
    ),
    "seccomp": (lambda o: pod(o)["securityContext"].pop("seccompProfile"), "seccompProfile"),
    "token": (lambda o: pod(o).update(automountServiceAccountToken=True), "automount"),
    "host": (lambda o: pod(o).update(hostNetwork=True), "hostNetwork"),
    "host path": (
        lambda o: pod(o)["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        "hostPath",
    ),
    "no limit": (
        lambda o: container(o)["resources"]["limits"].pop("memory"),
        "limits.memory",
    ),
    "endless volume": (
        lambda o: pod(o)["volumes"][-1].update(emptyDir={}),
        "no sizeLimit",
    ),
    "latest": (lambda o: container(o).update(image="r.example.com/triton:latest"), "latest"),
    "no tag": (lambda o: container(o).update(image="r.example.com:5000/triton"), "no tag"),
    "no registry": (lambda o: container(o).update(image="gref-triton:1"), "registry"),
    "no probe": (lambda o: container(o).pop("livenessProbe"), "livenessProbe"),
    "secret in sight": (
        lambda o: container(o)["env"].append({"name": "DB_PASSWORD", "value": "x"}),
        "DB_PASSWORD",
    ),
    "overlap": (
        lambda o: find(o, "CronJob", "gref-refresh")["spec"].update(concurrencyPolicy="Allow"),
        "concurrencyPolicy",
    ),
    "no deadline": (
        lambda o: find(o, "CronJob", "gref-refresh")["spec"]["jobTemplate"]["spec"].pop(
            "activeDeadlineSeconds"
        ),
        "activeDeadlineSeconds",
    ),
    "no budget": (
        lambda o: o.remove(find(o, "PodDisruptionBudget", "gref-triton")),
        "PodDisruptionBudget",
    ),
    "no spread": (lambda o: pod(o).pop("topologySpreadConstraints"), "topologySpread"),
    "open network": (
        lambda o: o.remove(find(o, "NetworkPolicy", "default-deny")),
        "no NetworkPolicy denies",
    ),
}
#: and here a name that leads nowhere.
BREAKS_NAME: dict[str, tuple[Spoil, str]] = {
    "lost config map": (
        lambda o: o.remove(find(o, "ConfigMap", "gref-routing")),
        "no ConfigMap gref-routing",
    ),
    "lost claim": (
        lambda o: o.remove(find(o, "PersistentVolumeClaim", "gref-models")),
        "no PersistentVolumeClaim gref-models",
    ),
    "unknown secret": (
        lambda o: container(o)["env"][0]["valueFrom"]["secretKeyRef"].update(name="other"),
        "no Secret other",
    ),
    "lost account": (
        lambda o: o.remove(find(o, "ServiceAccount", "gref-triton")),
        "no ServiceAccount gref-triton",
    ),
    "lost target": (
        lambda o: find(o, "HorizontalPodAutoscaler", "gref-triton")["spec"][
            "scaleTargetRef"
        ].update(name="gref-tritons"),
        "no Deployment gref-tritons",
    ),
    "selector": (
        lambda o: find(o, "Service", "gref-triton")["spec"]["selector"].update(app="x"),
        "no pod has the labels",
    ),
    "port": (
        lambda o: find(o, "Service", "gref-triton")["spec"]["ports"][0].update(targetPort="rest"),
        "port rest",
    ),
    "policy's port": (
        lambda o: find(o, "NetworkPolicy", "gref-consumer")["spec"]["ingress"][0]["ports"][
            0
        ].update(port="metric"),
        "port metric ",
    ),
    "mount": (
        lambda o: container(o)["volumeMounts"][0].update(name="model"),
        "mounts model",
    ),
    "frozen file": (
        lambda o: container(o)["volumeMounts"][2].update(subPath="routing.json"),
        "subPath",
    ),
    "twice": (lambda o: o.append(o[0]), "is there twice"),
}


@pytest.mark.parametrize("what", BREAKS_SCHEMA)
def test_a_broken_schema_is_found(rendered: Rendered, what: str) -> None:
    objects = rendered("production-gpu")
    before = copy.deepcopy(objects)
    spoil, words = BREAKS_SCHEMA[what]
    spoil(objects)
    changed = [one for one, other in zip(objects, before) if one != other]
    assert len(changed) == 1
    assert any(words in fault for fault in schema_faults(changed)), schema_faults(changed)


@pytest.mark.parametrize("what", BREAKS_RULE)
def test_a_broken_rule_is_found(rendered: Rendered, what: str) -> None:
    objects = rendered("production-gpu")
    spoil, words = BREAKS_RULE[what]
    spoil(objects)
    assert any(words in fault for fault in rule_faults(objects)), rule_faults(objects)


@pytest.mark.parametrize("what", BREAKS_NAME)
def test_a_name_that_leads_nowhere_is_found(rendered: Rendered, what: str) -> None:
    objects = rendered("production-gpu")
    spoil, words = BREAKS_NAME[what]
    spoil(objects)
    assert any(words in fault for fault in reference_faults(objects)), reference_faults(objects)


def test_check_as_a_command(tmp_path: Path) -> None:
    done = command("check", "dev")
    assert done.returncode == 0, done.stderr
    assert "valid against Kubernetes 1.30 and 1.37" in done.stdout
    broken = tmp_path / "mine"
    broken.mkdir()
    base = Path("/".join([".."] * (len(tmp_path.parts)))) / KUBERNETES.relative_to("/")
    (broken / "kustomization.yaml").write_text(
        f"resources: [{base}/overlays/dev]\n"
        "patches:\n- target: {kind: Deployment}\n  patch: |\n"
        "    - {op: remove, path: /spec/template/spec/securityContext}\n"
    )
    done = command("check", str(broken))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Deployment gref-triton: securityContext must set runAsNonRoot" in done.stderr
    done = command("check", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "holds no kustomization.yaml" in done.stderr


def test_images_are_pinned_by_digest_or_not_at_all(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    images = {
        c["image"]
        for one in render(KUBERNETES / "overlays" / "dev")
        if (template := pod_template(one))
        for c in containers(template["spec"])
    }
    file, out = tmp_path / "digests.yaml", tmp_path / "out.yaml"
    file.write_text(yaml.safe_dump(dict.fromkeys(images, digest)))
    assert command("render", "dev", "--digests", str(file), "--out", str(out)).returncode == 0
    text = out.read_text()
    assert text.count(f"@{digest}") == text.count("  image: ") == 7
    for value, words in ((None, "no digest for"), ("sha256:beef", "64 hex digits")):
        pinned = dict.fromkeys(sorted(images)[1:], digest)
        if value:
            pinned[min(images)] = value
        file.write_text(yaml.safe_dump(pinned))
        done = command("render", "dev", "--digests", str(file))
        assert done.returncode == 2
        assert words in done.stderr
        assert not done.stdout


def test_the_routing_of_git_is_one_that_clients_read() -> None:
    folder = KUBERNETES / "base" / "experiments"
    routing = read_json(folder / "routing.json", Routing)
    read_json(folder / "undo.json", Routing)
    archives = yaml.safe_load_all(
        (KUBERNETES / "base" / "torchserve" / "deployment.yaml").read_text()
    )
    torchserve = find(list(archives), "Deployment", "gref-torchserve")
    server = containers(torchserve["spec"]["template"]["spec"])[0]
    args = server["args"]
    asked = server["readinessProbe"]["exec"]["command"][2:]
    assert asked == [f"--model=gref_{release}" for release in routing.releases]
    assert args == [word for r in routing.releases for word in ("-m", f"gref_{r}=gref_{r}.mar")], (
        "TorchServe must serve what the routing names"
    )

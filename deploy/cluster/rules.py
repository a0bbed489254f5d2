"""What every workload of ours keeps to, beyond what the API demands. docs/security.md says why."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.cluster.rendering import Object, containers, name_of, pod_template

LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/component")


def rule_faults(objects: list[Object]) -> list[str]:
    """Every rule that an object breaks, by its name."""
    faults: list[str] = []
    for one in objects:
        template = pod_template(one)
        if template is None:
            continue
        where = name_of(one)
        faults += [f"{where}: {fault}" for fault in _pod_faults(one, template)]
        for container in containers(template["spec"]):
            faults += [
                f"{where}, container {container['name']}: {fault}"
                for fault in _container_faults(one, container)
            ]
        if one["kind"] == "CronJob":
            faults += [f"{where}: {fault}" for fault in _cron_faults(one["spec"])]
        if one["kind"] == "Deployment":
            faults += [f"{where}: {fault}" for fault in _deployment_faults(one, objects)]
    if not any(_denies_all(one) for one in objects):
        faults.append("no NetworkPolicy denies what no other one allows")
    return faults


def _pod_faults(one: Object, template: Object) -> Iterator[str]:
    pod, context = template["spec"], template["spec"].get("securityContext", {})
    labels = template.get("metadata", {}).get("labels", {})
    if missing := [label for label in LABELS if label not in labels]:
        yield f"the pod lacks the label {missing[0]}, by which policies find it"
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken must be false: no pod talks to the API server"
    if not pod.get("serviceAccountName"):
        yield "serviceAccountName is missing: a workload has an account of its own"
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "securityContext must set runAsNonRoot and a runAsUser above 0"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "securityContext.seccompProfile must be RuntimeDefault"
    for flag in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if pod.get(flag):
            yield f"{flag} is not allowed"
    for volume in pod.get("volumes", ()):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a hostPath"
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield f"volume {volume['name']} has no sizeLimit: it could fill the node"


def _container_faults(one: Object, container: Object) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem must be true"
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "allowPrivilegeEscalation must be false, and privileged unset"
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "capabilities must drop ALL and add none"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        for what in ("cpu", "memory"):
            if what not in resources.get(kind, {}):
                yield f"resources.{kind}.{what} is missing"
    yield from _image_faults(container["image"])
    for variable in container.get("env", ()):
        if "value" in variable and any(
            word in variable["name"].upper() for word in ("KEY", "SECRET", "PASSWORD", "TOKEN")
        ):
            yield f"env {variable['name']} holds its value; refer to a secret"
    if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{probe} is missing"


def _image_faults(image: str) -> Iterator[str]:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not digest and tag in ("", "latest"):
        yield f"image {image} has no tag, or latest; name one that does not move"
    if "/" not in name:
        yield f"image {image} was given no registry; add it to a kustomization's images"


def _cron_faults(spec: Object) -> Iterator[str]:
    job = spec["jobTemplate"]["spec"]
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "concurrencyPolicy must be Forbid"
    if "startingDeadlineSeconds" not in spec:
        yield "startingDeadlineSeconds is missing: a job that is late for good never starts again"
    for field in ("activeDeadlineSeconds", "backoffLimit"):
        if field not in job:
            yield f"{field} is missing"
    for rule in job.get("podFailurePolicy", {}).get("rules", ()):
        named = rule.get("onExitCodes", {}).get("containerName")
        if named and named not in [c["name"] for c in containers(job["template"]["spec"])]:
            yield f"podFailurePolicy names the container {named}, which is not there"


def _deployment_faults(one: Object, objects: list[Object]) -> Iterator[str]:
    labels = one["spec"]["template"]["metadata"]["labels"]
    replicas = one["spec"].get("replicas", 1)
    budgets = [
        other
        for other in objects
        if other["kind"] == "PodDisruptionBudget"
        and other["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ]
    if replicas > 1 and not budgets:
        yield "no PodDisruptionBudget selects its pods"
    if replicas > 1 and not one["spec"]["template"]["spec"].get("topologySpreadConstraints"):
        yield "topologySpreadConstraints are missing"


def _denies_all(one: Object) -> bool:
    if one["kind"] != "NetworkPolicy":
        return False
    spec = one["spec"]
    return (
        spec.get("podSelector") == {}
        and set(spec.get("policyTypes", ())) == {"Ingress", "Egress"}
        and not spec.get("ingress")
        and not spec.get("egress")
    )

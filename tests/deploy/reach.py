"""Who reaches whom, by the network policies: an evaluator of their documented meaning.

Additive rules: a pod that some policy selects for a direction is closed in it but for what the
policies allow. A peer's namespaceSelector and podSelector must both hold; a podSelector alone means
the policy's own namespace; a rule without peers is for everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.cluster.rendering import Object, containers, pod_template

OWN_NAMESPACE = "gref"


@dataclass(frozen=True)
class Peer:
    """A pod: labels of it and of its namespace. Outside of the cluster: no labels at all."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def pod_of(objects: list[Object], component: str) -> Peer:
    """The pod of a component of ours."""
    for one in objects:
        labels = (pod_template(one) or {}).get("metadata", {}).get("labels", {})
        if labels.get("app.kubernetes.io/component") == component:
            return Peer(labels, OWN_NAMESPACE, _namespace(OWN_NAMESPACE))
    raise LookupError(component)


def monitoring() -> Peer:
    return Peer({}, "monitoring", _namespace("monitoring"))


def ranking_server(**labels: str) -> Peer:
    """As docs/kubernetes.md says to label them; ``labels`` of the namespace, in place of these."""
    marked = labels or {"gref.dev/clients": "allowed"}
    return Peer({"gref.dev/role": "ranking-server"}, "shop", {**_namespace("shop"), **marked})


def may_enter(objects: list[Object], source: Peer, target: Peer, port: int) -> bool:
    """Whether the policies let ``source`` open a connection to a port of a pod of ours."""
    return _allowed(objects, "Ingress", target, source, port)


def may_leave(objects: list[Object], source: Peer, target: Peer, port: int) -> bool:
    """Whether the policies let a pod of ours open a connection to a port of ``target``."""
    return _allowed(objects, "Egress", source, target, port)


def _allowed(objects: list[Object], direction: str, own: Peer, other: Peer, port: int) -> bool:
    selecting = [
        one["spec"]
        for one in objects
        if one["kind"] == "NetworkPolicy"
        and _matches(one["spec"]["podSelector"], own.labels)
        and direction in one["spec"]["policyTypes"]
    ]
    if not selecting:
        return True
    peers = "from" if direction == "Ingress" else "to"
    return any(
        (not rule.get(peers) or any(_is_peer(peer, other) for peer in rule[peers]))
        and _port(objects, rule, own if direction == "Ingress" else other, port)
        for spec in selecting
        for rule in spec.get(direction.lower(), ())
    )


def _is_peer(peer: Object, pod: Peer) -> bool:
    if "namespaceSelector" in peer:
        if not pod.namespace or not _matches(peer["namespaceSelector"], pod.namespace_labels):
            return False
    elif pod.namespace != OWN_NAMESPACE:
        return False
    return _matches(peer.get("podSelector", {}), pod.labels)


def _port(objects: list[Object], rule: Object, target: Peer, port: int) -> bool:
    if not rule.get("ports"):
        return True
    names: dict[Any, int] = {
        declared["name"]: declared["containerPort"]
        for one in objects
        if (template := pod_template(one)) and template["metadata"]["labels"] == target.labels
        for container in containers(template["spec"])
        for declared in container.get("ports", ())
    }
    return any(names.get(one["port"], one["port"]) == port for one in rule["ports"])


def _matches(selector: Object, labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "an evaluator of what is used"
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _namespace(name: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": name}

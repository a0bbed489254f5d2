"""The network policies by what they mean: who reaches whom, and who does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.cluster.rendering import Object
from tests.deploy.reach import Peer, may_enter, may_leave, monitoring, pod_of, ranking_server

GRPC, METRICS, HTTP, KAFKA, HTTPS, DNS = 8001, 8002, 8000, 9092, 443, 53
STRANGER = Peer({"app": "x"}, "shop", {"kubernetes.io/metadata.name": "shop"})
INTERNET = Peer()
KUBE_DNS = Peer(
    {"k8s-app": "kube-dns"}, "kube-system", {"kubernetes.io/metadata.name": "kube-system"}
)
Rendered = Callable[[str], list[Object]]


@pytest.mark.parametrize("name", ["dev", "production-gpu"])
def test_triton_is_reached_by_ranking_servers_and_the_rollout_alone(
    rendered: Rendered, name: str
) -> None:
    objects = rendered(name)
    triton = pod_of(objects, "triton")
    rollout = pod_of(objects, "rollout")
    assert may_leave(objects, rollout, triton, GRPC)
    assert not may_leave(objects, rollout, INTERNET, GRPC)
    assert may_leave(objects, rollout, monitoring(), 9090)
    assert may_enter(objects, ranking_server(), triton, GRPC)
    assert may_enter(objects, rollout, triton, GRPC)
    assert may_enter(objects, monitoring(), triton, METRICS)
    others = (STRANGER, INTERNET, monitoring(), pod_of(objects, "consumer"))
    for peer in (*others, ranking_server(other="label"), pod_of(objects, "refresh")):
        assert not may_enter(objects, peer, triton, GRPC), peer
    for peer in (STRANGER, INTERNET, ranking_server(), rollout):
        assert not may_enter(objects, peer, triton, METRICS), peer
        assert not may_enter(objects, peer, triton, HTTP), peer


@pytest.mark.parametrize("name", ["dev", "production-gpu", "torchserve"])
def test_what_serves_has_no_way_out_but_names(rendered: Rendered, name: str) -> None:
    objects = rendered(name)
    server = pod_of(objects, "torchserve" if name == "torchserve" else "triton")
    assert may_leave(objects, server, KUBE_DNS, DNS)
    for peer in (INTERNET, STRANGER, pod_of(objects, "consumer")):
        for port in (DNS, HTTPS, KAFKA, 80):
            assert not may_leave(objects, server, peer, port)


@pytest.mark.parametrize("name", ["dev", "production-gpu", "torchserve"])
def test_consumer_and_refresh_reach_what_they_need(rendered: Rendered, name: str) -> None:
    objects = rendered(name)
    consumer, refresh = pod_of(objects, "consumer"), pod_of(objects, "refresh")
    assert may_leave(objects, consumer, INTERNET, KAFKA)
    assert may_leave(objects, consumer, INTERNET, HTTPS)
    assert may_enter(objects, monitoring(), consumer, 9100)
    assert not may_enter(objects, ranking_server(), consumer, 9100)
    assert not may_leave(objects, consumer, INTERNET, 22)
    assert may_leave(objects, refresh, INTERNET, HTTPS)
    assert not may_leave(objects, refresh, INTERNET, KAFKA)
    for peer in (STRANGER, INTERNET, monitoring(), ranking_server(), consumer):
        assert not may_enter(objects, peer, refresh, 80)


def test_torchserve_shows_lists_and_metrics_and_no_management(rendered: Rendered) -> None:
    objects = rendered("torchserve")
    server = pod_of(objects, "torchserve")
    for port in (8080, 7070):
        assert may_enter(objects, ranking_server(), server, port)
        assert not may_enter(objects, STRANGER, server, port)
    assert may_enter(objects, monitoring(), server, 8082)
    for peer in (ranking_server(), monitoring(), STRANGER):
        for port in (8081, 7071):
            assert not may_enter(objects, peer, server, port)


def test_the_second_triton_of_the_example_is_reached_as_the_first(rendered: Rendered) -> None:
    objects = rendered("canary-by-header")
    for component in ("triton", "triton-next"):
        pod = pod_of(objects, component)
        assert may_enter(objects, ranking_server(), pod, GRPC)
        assert may_enter(objects, monitoring(), pod, METRICS)
        assert not may_enter(objects, STRANGER, pod, GRPC)

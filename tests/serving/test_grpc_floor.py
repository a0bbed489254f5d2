"""The floor of latency is measured on the real Triton, beside the release."""

from __future__ import annotations

from benchmarks.grpc_floor import measure_grpc_floor
from tests.serving.conftest import Served
from tests.serving.toy_engines import toy_request


def test_floor_and_release_in_one_run(alive: Served) -> None:
    before = alive.stack.models()
    requests = [toy_request(number, 20) for number in range(3)]
    measured = measure_grpc_floor(alive.stack, alive.release, requests, calls=20, warmup=5)
    assert (measured.rows, measured.candidates, measured.calls) == (3, 64, 20)
    for times in (measured.floor, measured.release, measured.client, measured.engines):
        assert 0 < times.p50 <= times.p99
    assert alive.stack.models() == before, "the floor is taken down again"

"""What the sync and the asyncio client have in common besides the job: connection and release."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from contracts.features import FeatureSpec
from contracts.slates import RerankRequest
from handlers.rerank_exposure import TakeExposure, emit_exposures
from handlers.rerank_in_flight import InFlight
from handlers.rerank_job import RerankJob
from handlers.rerank_metrics import RerankMetrics, default_metrics
from handlers.rerank_result import RerankError, RerankResult
from handlers.rerank_wire import rerank_error
from handlers.served_release import ServedRelease, read_release

#: Name several servers by a DNS name of a headless service ("dns:///triton-headless:8001"): calls
#: go round all of its addresses. Without this a client would stay with the first one.
_SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    # A connection that died in silence is found out in 15 s, not when the kernel gives up. The
    # server must allow such pings (docs/serving.md).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # After an outage, try again within a second; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class RerankBase:
    """Options, the release once it was read, and the end of each job."""

    def __init__(
        self,
        url: str,
        release: str | None = None,
        *,
        spec: FeatureSpec | None = None,
        deadline_ms: float = 100.0,
        raise_errors: bool = False,
        metrics: RerankMetrics | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        exposures: TakeExposure | None = None,
        arm: str = "",
        max_in_flight: int = 64,
    ) -> None:
        """Make a client; nothing is sent yet, so an absent server does not matter here.

        Args:
            url: host:port of Triton's gRPC endpoint.
            release: the release to ask; without it the newest that is ready at the first call.
            spec: the feature spec that the caller means; a release with another one is not used.
                It also gives n to the fallback while no release has been reached.
            deadline_ms: wall time of a call, encoding included.
            raise_errors: raise RerankError where a result would be a fallback.
            credentials: for TLS; without them the connection is not encrypted.
            exposures: called once for each list that is returned, fallbacks too, with its exposure
                event: ``EventProducer(...).send``. It must return at once; what it raises is
                counted, and the list is returned all the same. A call that raises RerankError
                (``raise_errors``) shows nothing, so it has no exposures.
            arm: the experiment's arm that this client serves, for exposures and metrics.
            max_in_flight: messages that may be under way; a request beyond them falls back at once
                (``overloaded``), where it would only wait until its deadline.
        """
        self.url = url
        self.release = release
        self.deadline_ms = deadline_ms
        self.raise_errors = raise_errors
        self._spec = spec
        self._metrics = metrics or default_metrics()
        self._credentials = credentials
        self._served: ServedRelease | None = None
        #: n of the fallback; it outlives ``_served``, which an outage clears.
        self._list_size = spec.list_size if spec else None
        self._exposures, self._arm = exposures, arm
        self._spec_sha256 = spec.hash() if spec else ""
        self._in_flight = InFlight(max_in_flight)

    def _job(self, requests: Sequence[RerankRequest], deadline_ms: float | None) -> RerankJob:
        limit = self.deadline_ms if deadline_ms is None else deadline_ms
        requests = list(requests)
        return RerankJob(
            requests,
            limit,
            self._list_size,
            releases=[self.release] * len(requests),
            arms=[self._arm] * len(requests),
        )

    def _results(self, job: RerankJob) -> list[RerankResult]:
        results = job.results(self._metrics)
        error = job.first_error()
        if error and error.fallback == "unavailable":
            self._served = None  # read it again: what comes back may not be what went away
        return self._report(job, results, error)

    def _report(
        self, job: RerankJob, results: list[RerankResult], error: RerankError | None
    ) -> list[RerankResult]:
        if error and self.raise_errors:
            raise error
        if self._exposures is not None:
            emit_exposures(
                self._exposures,
                job,
                results,
                self._metrics,
                feature_spec_sha256=self._spec_sha256,
            )
        return results

    def _read(self, response: service_pb2.ModelConfigResponse, release: str) -> ServedRelease:
        self._served = read_release(response.config, release, self._spec)
        self._list_size = self._served.spec.list_size
        self._spec_sha256 = self._served.spec_sha256
        return self._served


def open_channel(url: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """A channel for threads; it connects by itself, and again after an outage."""
    if credentials is None:
        return grpc.insecure_channel(url, CHANNEL_OPTIONS)
    return grpc.secure_channel(url, credentials, CHANNEL_OPTIONS)


def open_aio_channel(url: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel for asyncio; it belongs to the loop that is running now."""
    if credentials is None:
        return grpc.aio.insecure_channel(url, CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(url, credentials, CHANNEL_OPTIONS)


def as_rerank_error(error: Exception) -> RerankError:
    """Any failure of the serving path as a fallback; a surprise counts as unavailability."""
    if isinstance(error, RerankError):
        return error
    if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
        return rerank_error(error)
    if isinstance(error, (grpc.FutureTimeoutError, asyncio.TimeoutError)):
        return RerankError("unavailable", "the server did not answer in time")
    return RerankError("unavailable", f"{type(error).__name__}: {error}")

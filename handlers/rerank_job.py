"""One call of a client without its I/O: requests in, messages to send, results out.

The sync and the asyncio client differ in how they wait, and in nothing else; what they have in
common is here. Every request of a job ends with a result, by ``finish`` or by ``fail``.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from tritonclient.grpc import service_pb2

from contracts.encoding import EncodedBatch
from contracts.rules import EncodedRules, encode_rules
from contracts.slates import RerankRequest, distinct
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankError, RerankResult, given_order, rules_kept
from handlers.rerank_wire import infer_request, read_lists
from handlers.served_release import ServedRelease

_INT64 = 1 << 63


@dataclass(frozen=True)
class Call:
    """One message to the ensemble and the rows of the job that it asks for."""

    rows: tuple[int, ...]
    message: service_pb2.ModelInferRequest


class RerankJob:
    """The requests of one ``rerank`` or ``rerank_many``, under one deadline."""

    def __init__(
        self,
        requests: Sequence[RerankRequest],
        deadline_ms: float,
        list_size: int | None,
        *,
        arms: Sequence[str] | None = None,
        started: float | None = None,
    ) -> None:
        """Describe the call.

        Args:
            arms: of each request; without them "".
            started: of the deadline, by ``time.perf_counter``; without it now.
        """
        self._started = time.perf_counter() if started is None else started
        self._deadline_s = deadline_ms / 1000
        self.requests = list(requests)
        self._arms = list(arms) if arms is not None else [""] * len(self.requests)
        self._temperatures, self._seeds = [0.0] * len(self.requests), [0] * len(self.requests)
        self._list_size = list_size
        self._release: str | None = None
        #: For each request, the candidates that were sent: distinct ones, by their index.
        self._sent: list[list[int]] = [[] for _ in self.requests]
        self._outcomes: list[RerankError | tuple[list[int], list[float], int] | None]
        self._outcomes = [None] * len(self.requests)

    def time_left(self) -> float:
        """Seconds to the deadline.

        Raises:
            RerankError: it has passed.
        """
        left = self._deadline_s - (time.perf_counter() - self._started)
        if left <= 0:
            raise RerankError("deadline", f"{self._deadline_s * 1000:g} ms have passed")
        return left

    def prepare(
        self,
        served: ServedRelease,
        temperature: float | Sequence[float],
        seeds: Sequence[int] | None,
    ) -> list[Call]:
        """Encode what can be encoded; requests that are refused fail here, each for itself.

        Requests of one bucket share a message, up to the release's batch size.

        Args:
            temperature: of all requests, or one for each.
        """
        self._release, self._list_size = served.name, served.spec.list_size
        try:
            heats = self._checked_temperatures(temperature)
            seeds = self._checked_seeds(seeds)
        except RerankError as error:
            self.fail(range(len(self.requests)), error)
            return []
        self._temperatures, self._seeds = heats, [int(seed) for seed in seeds]
        buckets: dict[int, list[int]] = defaultdict(list)
        for row, request in enumerate(self.requests):
            try:
                self._sent[row] = distinct(request)
                count = len(self._sent[row])
                if not count:
                    raise ValueError("no candidates; allowed: at least one")
                buckets[served.spec.bucket(count)].append(row)
            except Exception as error:
                self._refuse(row, error)
        calls = []
        for bucket, members in buckets.items():
            for start in range(0, len(members), served.max_batch_size):
                rows = members[start : start + served.max_batch_size]
                rows, encoded = self._encode(served, rows, bucket)
                if encoded is not None:
                    own = [heats[row] for row in rows], [seeds[row] for row in rows]
                    message = infer_request(served.model, *encoded, *own)
                    calls.append(Call(tuple(rows), message))
        return calls

    def draw(self, row: int) -> tuple[float, int]:
        """Temperature and seed with which the list of a request was drawn."""
        return self._temperatures[row], self._seeds[row]

    def finish(self, call: Call, response: service_pb2.ModelInferResponse) -> None:
        """Take the answer to a call; one that cannot be trusted fails its requests."""
        counts = [len(self._sent[row]) for row in call.rows]
        try:
            lists = read_lists(response, counts, self._list_size or 0)
        except RerankError as error:
            self.fail(call.rows, error)
            return
        except Exception as error:
            self.fail(call.rows, RerankError("bad_response", _told(error)))
            return
        for index, row in enumerate(call.rows):
            length = min(counts[index], self._list_size or 0)
            order = [self._sent[row][i] for i in lists.order_BN[index, :length].tolist()]
            log_prob = lists.log_prob_BN[index, :length].tolist()
            self._outcomes[row] = (order, log_prob, int(lists.passes_B[index]))

    def fail(self, rows: Sequence[int], error: RerankError) -> None:
        """Let requests fall back, save those that have an outcome already."""
        for row in rows:
            self._outcomes[row] = self._outcomes[row] or error

    def fail_rest(self, error: RerankError) -> None:
        self.fail(range(len(self.requests)), error)

    def gone(self) -> list[int]:
        """The rows that failed because the server has no such release."""
        errors = ((row, one) for row, one in enumerate(self._outcomes))
        return [row for row, one in errors if isinstance(one, RerankError) and one.gone]

    def first_error(self) -> RerankError | None:
        return next((one for one in self._outcomes if isinstance(one, RerankError)), None)

    def results(self, metrics: RerankMetrics, release: str | None) -> list[RerankResult]:
        """A result for each request, counted."""
        latency_s = time.perf_counter() - self._started
        name = self._release or release
        results = [self._result(row, name, latency_s * 1000) for row in range(len(self.requests))]
        for result in results:
            metrics.count(name, result.arm, result.fallback, latency_s)
            if result.relaxed != (0, 0):
                metrics.count_relaxed(*result.relaxed)
        return results

    def _result(self, row: int, release: str | None, latency_ms: float) -> RerankResult:
        outcome = self._outcomes[row]
        request = self.requests[row]
        error = outcome if isinstance(outcome, RerankError) else None
        relaxed = (0, 0)
        if isinstance(outcome, tuple):
            indices, log_prob, passes = outcome
        else:
            indices = given_order(request, self._list_size)
            error = error or RerankError("unavailable", "no answer")
        with contextlib.suppress(AttributeError, TypeError):  # a request that is malformed
            relaxed = rules_kept(request, indices)
        return RerankResult(
            request_id=getattr(request, "request_id", ""),
            items=tuple(getattr(request.candidates[i], "item", "") for i in indices),
            indices=tuple(indices),
            log_prob=None if error else tuple(log_prob),
            release=release,
            fallback=error.fallback if error else None,
            error=str(error) if error else None,
            passes=None if error else passes,
            latency_ms=latency_ms,
            relaxed=relaxed,
            arm=self._arms[row],
        )

    def _checked_temperatures(self, given: float | Sequence[float]) -> list[float]:
        try:
            heats = [given] * len(self.requests) if isinstance(given, (int, float)) else given
            for heat in heats:
                if not (math.isfinite(heat) and heat >= 0):
                    raise ValueError(f"temperature is {heat}; allowed: 0 (greedy) or above")
            return [float(heat) for heat in heats]
        except Exception as error:
            raise RerankError("bad_request", _told(error)) from error

    def _checked_seeds(self, seeds: Sequence[int] | None) -> Sequence[int]:
        try:
            if seeds is None:
                return [0] * len(self.requests)
            if len(seeds) != len(self.requests):
                raise ValueError(f"{len(seeds)} seeds for {len(self.requests)} requests")
            if not all(-_INT64 <= seed < _INT64 for seed in seeds):
                raise ValueError("a seed does not fit into 64 bits")
        except Exception as error:
            raise RerankError("bad_request", _told(error)) from error
        return seeds

    def _encode(
        self, served: ServedRelease, rows: list[int], bucket: int
    ) -> tuple[list[int], tuple[EncodedBatch, EncodedRules] | None]:
        """The rows that the encoder accepts, encoded; the others fail with what it says."""
        try:
            return rows, self._encoded(served, rows, bucket)
        except Exception:  # somebody's: ask one by one whose
            accepted = [row for row in rows if self._is_encodable(served, row)]
        return accepted, self._encoded(served, accepted, bucket) if accepted else None

    def _encoded(
        self, served: ServedRelease, rows: list[int], bucket: int
    ) -> tuple[EncodedBatch, EncodedRules]:
        requests = [self._distinct(row) for row in rows]
        rules = encode_rules(requests, served.spec.list_size, bucket)
        return served.encoder.encode(requests, bucket), rules

    def _is_encodable(self, served: ServedRelease, row: int) -> bool:
        try:
            self._encoded(served, [row], served.spec.bucket(len(self._sent[row])))
        except Exception as error:
            self._refuse(row, error)
            return False
        return True

    def _distinct(self, row: int) -> RerankRequest:
        request, sent = self.requests[row], self._sent[row]
        if len(sent) == len(request.candidates):
            return request
        return msgspec.structs.replace(
            request, candidates=tuple(request.candidates[i] for i in sent)
        )

    def _refuse(self, row: int, error: Exception) -> None:
        self.fail([row], RerankError("bad_request", _told(error)))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"

"""One call of a client without its I/O: requests in, messages to send, results out.

The sync and the asyncio client differ in how they wait, and in nothing else; what they have in
common is here. Every request of a job ends with a result, by ``finish`` or by ``fail``.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from tritonclient.grpc import service_pb2

from contracts.encoding import EncodedBatch
from contracts.rules import EncodedRules, encode_rules
from contracts.slates import RerankRequest, distinct
from handlers.rerank_metrics import RerankMetrics
from handlers.rerank_result import RerankError, RerankResult
from handlers.rerank_row import Row, result_of
from handlers.rerank_wire import infer_request, read_lists
from handlers.served_release import ServedRelease

_INT64 = 1 << 63


@dataclass(frozen=True)
class Call:
    """One message to the ensemble, the rows of the job that it asks for, and n of its release."""

    rows: tuple[int, ...]
    message: service_pb2.ModelInferRequest
    list_size: int


class RerankJob:
    """The requests of one ``rerank`` or ``rerank_many``, under one deadline."""

    def __init__(
        self,
        requests: Sequence[RerankRequest],
        deadline_ms: float,
        list_size: int | None,
        *,
        releases: Sequence[str | None] | None = None,
        arms: Sequence[str] | None = None,
    ) -> None:
        """Describe the call; the deadline runs from now.

        Args:
            list_size: of fallbacks of requests that no release was read for.
            releases, arms: of each request; without them none.
        """
        self._started = time.perf_counter()
        self._deadline_s = deadline_ms / 1000
        self.requests = list(requests)
        releases = releases or [None] * len(self.requests)
        arms = arms or [""] * len(self.requests)
        self._rows = [
            Row(request, arm, release, list_size)
            for request, arm, release in zip(self.requests, arms, releases)
        ]

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
        rows: Sequence[int] | None = None,
    ) -> list[Call]:
        """Encode what can be encoded; requests that are refused fail here, each for itself.

        Requests of one bucket share a message, up to the release's batch size.

        Args:
            temperature: of all rows, or one for each. seeds: one for each row.
            rows: those that are for this release; without them all. Such as failed before are
                asked anew.
        """
        rows = range(len(self._rows)) if rows is None else rows
        for row in rows:
            own = self._rows[row]
            own.release, own.spec_sha256 = served.name, served.spec_sha256
            own.list_size, own.outcome = served.spec.list_size, None
        try:
            self._take_draws(rows, temperature, seeds)
        except RerankError as error:
            self.fail(rows, error)
            return []
        buckets: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            own = self._rows[row]
            try:
                own.sent = distinct(own.request)
                if not own.sent:
                    raise ValueError("no candidates; allowed: at least one")
                buckets[served.spec.bucket(len(own.sent))].append(row)
            except Exception as error:
                self._refuse(row, error)
        calls = []
        for bucket, members in buckets.items():
            for start in range(0, len(members), served.max_batch_size):
                part = members[start : start + served.max_batch_size]
                part, encoded = self._encode(served, part, bucket)
                if encoded is not None:
                    draws = [self.draw(row) for row in part]
                    heats, own_seeds = [draw[0] for draw in draws], [draw[1] for draw in draws]
                    message = infer_request(served.model, *encoded, heats, own_seeds)
                    calls.append(Call(tuple(part), message, served.spec.list_size))
        return calls

    def draw(self, row: int) -> tuple[float, int]:
        """Temperature and seed with which the list of a request was drawn."""
        return self._rows[row].temperature, self._rows[row].seed

    def spec_sha256(self, row: int) -> str:
        """The hash of the feature spec of the release that was asked; "" if none was read."""
        return self._rows[row].spec_sha256

    def finish(self, call: Call, response: service_pb2.ModelInferResponse) -> None:
        """Take the answer to a call; one that cannot be trusted fails its requests."""
        counts = [len(self._rows[row].sent) for row in call.rows]
        try:
            lists = read_lists(response, counts, call.list_size)
        except RerankError as error:
            self.fail(call.rows, error)
            return
        except Exception as error:
            self.fail(call.rows, RerankError("bad_response", _told(error)))
            return
        for index, row in enumerate(call.rows):
            own, length = self._rows[row], min(counts[index], call.list_size)
            order = [own.sent[i] for i in lists.order_BN[index, :length].tolist()]
            log_prob = lists.log_prob_BN[index, :length].tolist()
            own.outcome = (order, log_prob, int(lists.passes_B[index]))

    def fail(self, rows: Sequence[int], error: RerankError) -> None:
        """Let requests fall back, save those that have an outcome already."""
        for row in rows:
            self._rows[row].outcome = self._rows[row].outcome or error

    def fail_rest(self, error: RerankError) -> None:
        self.fail(range(len(self._rows)), error)

    def errors(self) -> Iterator[tuple[int, RerankError]]:
        """The rows that failed, and why."""
        for row, own in enumerate(self._rows):
            if isinstance(own.outcome, RerankError):
                yield row, own.outcome

    def gone(self) -> list[int]:
        """The rows that failed because the server has no such release."""
        return [row for row, error in self.errors() if error.gone]

    def first_error(self) -> RerankError | None:
        return next((error for _, error in self.errors()), None)

    def results(self, metrics: RerankMetrics) -> list[RerankResult]:
        """A result for each request, counted."""
        latency_s = time.perf_counter() - self._started
        results = [result_of(row, latency_s * 1000) for row in self._rows]
        for result in results:
            metrics.count(result.release, result.arm, result.fallback, latency_s)
            if result.relaxed != (0, 0):
                metrics.count_relaxed(*result.relaxed)
        return results

    def _take_draws(
        self,
        rows: Sequence[int],
        temperature: float | Sequence[float],
        seeds: Sequence[int] | None,
    ) -> None:
        try:
            if not isinstance(temperature, Sequence):
                temperature = [temperature] * len(rows)
            seeds = [0] * len(rows) if seeds is None else seeds
            for heat in temperature:
                if not (math.isfinite(heat) and heat >= 0):
                    raise ValueError(f"temperature is {heat}; allowed: 0 (greedy) or above")
            for name, given in (("temperatures", temperature), ("seeds", seeds)):
                if len(given) != len(rows):
                    raise ValueError(f"{len(given)} {name} for {len(rows)} requests")
            if not all(-_INT64 <= seed < _INT64 for seed in seeds):
                raise ValueError("a seed does not fit into 64 bits")
            for row, heat, seed in zip(rows, temperature, seeds):
                self._rows[row].temperature, self._rows[row].seed = float(heat), int(seed)
        except Exception as error:
            raise RerankError("bad_request", _told(error)) from error

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
            self._encoded(served, [row], served.spec.bucket(len(self._rows[row].sent)))
        except Exception as error:
            self._refuse(row, error)
            return False
        return True

    def _distinct(self, row: int) -> RerankRequest:
        request, sent = self._rows[row].request, self._rows[row].sent
        if len(sent) == len(request.candidates):
            return request
        return msgspec.structs.replace(
            request, candidates=tuple(request.candidates[i] for i in sent)
        )

    def _refuse(self, row: int, error: Exception) -> None:
        self.fail([row], RerankError("bad_request", _told(error)))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"

"""Latency of an arm, from the clients' histograms through Prometheus' HTTP API.

The feedback table knows nothing of latency. Clients observe every rerank in
``gref_rerank_latency_seconds``; its label ``arm`` is the exposure's: "experiment/arm", joined by
"," over layers.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

HISTOGRAM = "gref_rerank_latency_seconds"


class PrometheusError(RuntimeError):
    """Prometheus cannot be asked, or refused the query. The message says which and what to do."""


@dataclass(frozen=True)
class Latency:
    """A cumulative histogram.

    Attributes:
        edges_ms: upper edges, rising, the last infinite. counts: requests up to each edge.
    """

    edges_ms: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def requests(self) -> float:
        return self.counts[-1] if self.counts else 0.0

    def quantile_ms(self, quantile: float) -> float | None:
        """By linear interpolation within a bucket, as PromQL's histogram_quantile has it."""
        rank = quantile * self.requests
        low, below = 0.0, 0.0
        for edge, count in zip(self.edges_ms, self.counts):
            if count >= rank and count > below:
                if math.isinf(edge):
                    return low or None
                return low + (edge - low) * (rank - below) / (count - below)
            low, below = edge, count
        return None

    def edge_ms(self, limit: float) -> float:
        """The first edge at or above a limit: slower than that is slower than the limit."""
        return next((edge for edge in self.edges_ms if edge >= limit * (1 - 1e-9)), math.inf)

    def share_above(self, edge: float) -> float:
        """The share of requests above one of the edges."""
        return 1 - self.counts[self.edges_ms.index(edge)] / self.requests


def arm_latency(
    url: str, experiment: str, arm: str, *, start: int, end: int, timeout_s: float = 5.0
) -> Latency:
    """The latencies of an arm's requests between two times (ms).

    Raises:
        PrometheusError: it cannot be asked, or has no such series.
    """
    label = f"{experiment}/{arm}"  # names are letters, digits, - and _: nothing to escape
    seconds = max(1, (end - start) // 1000)
    query = f'sum by (le) (increase({HISTOGRAM}_bucket{{arm=~"(.*,)?{label}(,.*)?"}}[{seconds}s]))'
    found = ask(url, query, end / 1000, timeout_s)
    pairs = sorted(
        (float(series["metric"]["le"].replace("+Inf", "inf")), float(series["value"][1]))
        for series in found
    )
    if not pairs or not pairs[-1][1] > 0:
        raise PrometheusError(
            f"Prometheus at {url} has no {HISTOGRAM} of arm {experiment}/{arm} in that time; "
            "check that it scrapes the ranking servers, and that they use the routed client"
        )
    if not math.isinf(pairs[-1][0]):
        raise PrometheusError(f"Prometheus at {url}: {HISTOGRAM} of {arm} has no +Inf bucket")
    counts: list[float] = []
    for _, count in pairs:  # extrapolation may leave them uneven by a hair
        counts.append(max(count, counts[-1] if counts else 0.0))
    return Latency(tuple(1000 * edge for edge, _ in pairs), tuple(counts))


def ask(url: str, query: str, time_s: float, timeout_s: float) -> list[dict[str, Any]]:
    """The vector that an instant query gives; raises PrometheusError."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise PrometheusError(f"{url!r} is no address of Prometheus; allowed: http://host:port")
    form = urllib.parse.urlencode({"query": query, "time": f"{time_s:.3f}"})
    address = f"{url.rstrip('/')}/api/v1/query"
    request = urllib.request.Request(address, form.encode())  # noqa: S310 (scheme checked)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            body = json.loads(answer.read())
        if body.get("status") != "success" or body["data"]["resultType"] != "vector":
            raise PrometheusError(f"Prometheus at {url} answered {str(body)[:200]}")
        vector: list[dict[str, Any]] = body["data"]["result"]
        return vector
    except urllib.error.HTTPError as error:
        text = error.read()[:200].decode("utf-8", "replace")
        raise PrometheusError(f"Prometheus at {url} refused: {error.code} {text}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrometheusError(f"Prometheus at {url} cannot be asked: {error}") from error

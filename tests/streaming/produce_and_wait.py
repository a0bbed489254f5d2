"""A process that produces events and then waits to be killed; run by test_producer.py.

Arguments: brokers, spool, first, last. Prints a line when all of it is in the spool.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from streaming.producer import EventProducer
from streaming.producer_metrics import ProducerMetrics
from tests.contracts.made_events import feedback
from tests.serving.processes import wait_until

brokers, spool, first, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
registry = CollectorRegistry()
producer = EventProducer(brokers, spool, metrics=ProducerMetrics(registry))
for number in range(first, last):
    producer.send(feedback(number, request_id=f"r{number % 7}"))


def spooled() -> float:
    return registry.get_sample_value("gref_producer_spooled_total") or 0.0


wait_until(lambda: spooled() >= last - first, "all is in the spool")
print("spooled", flush=True)
signal.pause()

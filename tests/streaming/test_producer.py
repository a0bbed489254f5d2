"""The producer with a real broker that is up, away, killed, stalled or silent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from contracts.events import (
    EXPOSURES,
    FEEDBACK,
    MAX_EVENT_BYTES,
    decode_exposure,
    decode_feedback,
)
from contracts.slates import Candidate
from deploy.child_process import free_port
from deploy.local_broker import LocalBroker
from streaming.producer import EventProducer
from streaming.producer_metrics import ProducerMetrics
from tests.contracts.made_events import exposure, feedback
from tests.serving.processes import ROOT, wait_until
from tests.streaming.kafka_reading import first_times, read_records

pytestmark = pytest.mark.timeout(180)


class Counted:
    """The counters of one producer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = ProducerMetrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"gref_producer_{name}", labels) or 0.0

    def dropped(self) -> dict[str, float]:
        family = next(f for f in self.registry.collect() if f.name == "gref_producer_dropped")
        samples = (s for s in family.samples if s.name.endswith("_total"))
        return {sample.labels["reason"]: sample.value for sample in samples if sample.value}


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def away(tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker that is not up yet, with an address all the same."""
    broker = LocalBroker(tmp_path / "broker", port=free_port())
    yield broker
    broker.stop()


def producer_of(address: str, tmp_path: Path, counted: Counted, **options: Any) -> EventProducer:
    return EventProducer(address, tmp_path / "spool", metrics=counted.metrics, **options)


def clicks(count: int, start: int = 0) -> list[Any]:
    """Feedback whose event ids are numbers; seven requests take turns."""
    return [feedback(n, request_id=f"r{n % 7}") for n in range(start, start + count)]


def check_order_by_key(records: list[Any], expected: set[str]) -> None:
    """Every event at least once, and those of a request in the order of their numbers."""
    by_key = defaultdict(list)
    for record in records:
        event = decode_feedback(record.value)
        assert record.key == event.request_id.encode()
        by_key[record.key].append(event.event_id)
    assert {one for ids in by_key.values() for one in ids} == expected
    for ids in by_key.values():
        numbers = [int(one[1:]) for one in first_times(ids)]
        assert numbers == sorted(numbers)


def ids_of(count: int, start: int = 0) -> set[str]:
    return {f"e{n}" for n in range(start, start + count)}


#: Request ids and their murmur2 as the Java client gives it, signed.
MURMUR2 = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "abc": 479470107,
}


def test_events_arrive_on_the_partition_that_java_would_choose(
    broker: LocalBroker, tmp_path: Path, counted: Counted
) -> None:
    with producer_of(broker.address, tmp_path, counted) as producer:
        for n, name in enumerate(MURMUR2):
            assert producer.send(exposure(n, request_id=name))
            assert producer.send(feedback(n, request_id=name))
        assert producer.flush()
        shown = read_records(broker.address, EXPOSURES, len(MURMUR2))
        acts = read_records(broker.address, FEEDBACK, len(MURMUR2))
    for records in (shown, acts):
        assert {record.key.decode(): record.partition for record in records} == {
            name: (value & 0x7FFFFFFF) % 4 for name, value in MURMUR2.items()
        }
    assert {decode_exposure(record.value).request_id for record in shown} == set(MURMUR2)
    assert counted("sent_total", topic=EXPOSURES) == counted("sent_total", topic=FEEDBACK) == 5
    assert counted("queue_events") == counted("queue_bytes") == 0
    assert counted.dropped() == {}


def test_a_broker_that_comes_later(away: LocalBroker, tmp_path: Path, counted: Counted) -> None:
    with producer_of(away.address, tmp_path, counted) as producer:
        assert all(producer.send(event) for event in clicks(500))
        wait_until(lambda: counted("spooled_total") == 500, "all is on disk")
        assert counted("queue_events") == 0
        assert counted("spool_events") == 500
        assert counted("connected") == 0
        away.start()
        away.create_topics()
        assert all(producer.send(event) for event in clicks(100, 500))
        assert producer.flush(60)
        assert counted("connected") == 1
        check_order_by_key(read_records(away.address, FEEDBACK, 600), ids_of(600))
    assert counted("spool_bytes") == counted("spool_events") == 0
    assert not list((tmp_path / "spool").rglob("*.spool"))


def test_send_waits_for_no_network(tmp_path: Path, counted: Counted) -> None:
    """An address that takes connections and never says a word, whatever is sent to it."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        producer = producer_of(address, tmp_path, counted)
        assert all(producer.send(event) for event in clicks(2000))
        assert producer.flush(0.2) is False
        assert producer.close(0.2) is True
        assert producer.send(feedback()) is False
        assert counted.dropped() == {"closed": 1}
    again = Counted()
    with producer_of("127.0.0.1:9", tmp_path, again) as heir:
        wait_until(lambda: again("spool_events") == 2000, "the spool is taken over")
        assert heir.close(0.1)


def test_kill_9_of_the_broker_half_way(
    durable_broker: LocalBroker, tmp_path: Path, counted: Counted
) -> None:
    """A durable broker; events are sent before, while and after it is gone, three times."""
    broker, number = durable_broker, 0
    threads = threading.active_count()
    with producer_of(broker.address, tmp_path, counted, chunk_timeout_s=5) as producer:
        for _ in range(3):
            for event in clicks(300, number):
                assert producer.send(event)
            wait_until(lambda: counted("sent_total", topic=FEEDBACK) > 0, "some have arrived")
            broker.kill()
            for event in clicks(300, number + 300):
                assert producer.send(event)
            number += 600
            broker.start()
        assert producer.flush(90)
        records = read_records(broker.address, FEEDBACK, number)
        check_order_by_key(records, ids_of(number))
    assert counted.dropped() == {}
    wait_until(lambda: threading.active_count() <= threads, "no thread is left behind")


def test_a_broker_that_stalls(broker: LocalBroker, tmp_path: Path, counted: Counted) -> None:
    """It has the events and does not say so: they are sent again, and counted."""
    assert broker.process is not None
    with producer_of(broker.address, tmp_path, counted, chunk_timeout_s=0.5) as producer:
        assert producer.send(feedback(0, request_id="r0"))
        assert producer.flush()
        os.kill(broker.process.pid, signal.SIGSTOP)
        try:
            for event in clicks(50, 1):
                assert producer.send(event)
            wait_until(lambda: counted("spooled_total") >= 50, "they wait on disk")
            wait_until(lambda: counted("connected") == 0, "it is given up")
        finally:
            os.kill(broker.process.pid, signal.SIGCONT)
        assert producer.flush(60)
        records = read_records(broker.address, FEEDBACK, 51)
        check_order_by_key(records, ids_of(51))
        assert len(records) - 51 <= counted("resent_total")


def test_what_overflows_is_dropped_and_counted(
    away: LocalBroker, tmp_path: Path, counted: Counted
) -> None:
    with producer_of(
        away.address, tmp_path, counted, memory_bytes=20_000, spool_bytes=20_000
    ) as producer:
        answers = []
        for event in clicks(400):
            answers.append(producer.send(event))
            if not answers[-1]:
                break
            wait_until(
                lambda: counted("queue_bytes") < 10_000 or counted("spool_bytes") > 19_000, ""
            )
        taken = len(answers) - 1
        assert 100 < taken < 400
        assert [producer.send(event) for event in clicks(20, taken + 1)] == [False] * 20
        assert counted.dropped() == {"overflow": 21}
        assert counted("spool_bytes") <= 20_000
        assert counted("queue_bytes") <= 20_000
        away.start()
        away.create_topics()
        assert producer.flush(60)
        check_order_by_key(read_records(away.address, FEEDBACK, taken), ids_of(taken))
        assert producer.send(feedback(taken, request_id="r0")), "there is room again"
    assert counted.dropped() == {"overflow": 21}


def test_kill_9_of_the_process_and_a_new_one(
    away: LocalBroker, tmp_path: Path, counted: Counted
) -> None:
    spool = tmp_path / "spool"
    for first, last in ((0, 200), (200, 300)):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.streaming.produce_and_wait"),
                *(away.address, str(spool), str(first), str(last)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "spooled\n"
        process.kill()
        process.communicate()
    newest = max(spool.rglob("*.spool"))
    with newest.open("ab") as file:
        file.write(b"\x40\x00\x00\x00torn")  # a record of 64 bytes, of which a few were written
    away.start()
    away.create_topics()
    with producer_of(away.address, tmp_path, counted) as producer:
        assert producer.send(feedback(300, request_id="r0"))
        wait_until(lambda: counted("sent_total", topic=FEEDBACK) == 301, "all has arrived")
        check_order_by_key(read_records(away.address, FEEDBACK, 301), ids_of(301))
    assert counted("spool_damaged_bytes_total") == 8


def test_close_leaves_the_rest_to_the_next_process(
    away: LocalBroker, tmp_path: Path, counted: Counted
) -> None:
    producer = producer_of(away.address, tmp_path, counted, spill_after_s=60)
    for event in clicks(30):
        assert producer.send(event)
    assert counted("spooled_total") == 0
    assert producer.close(0.1)
    assert producer.close()
    assert counted("spooled_total") == 30
    away.start()
    away.create_topics()
    with producer_of(away.address, tmp_path, Counted()):
        check_order_by_key(read_records(away.address, FEEDBACK, 30), ids_of(30))


BAD_EVENTS = {
    "not an event": {"type": "exposure"},
    "none": None,
    "text for a time": feedback(time="now"),
    "empty request id": feedback(request_id=""),
    "a long id": feedback(event_id="e" * 257),
    "a list for a feature": exposure(items=(Candidate(item="a", features={"x": [1]}),)),  # type: ignore[dict-item]
    "an object for a feature": exposure(items=(Candidate(item="a", features={"x": object()}),)),  # type: ignore[dict-item]
    "a lone surrogate": feedback(kind="\ud800"),
    "NaN among log_prob": exposure(log_prob=(float("nan"), -1.0, -1.0)),
    "513 candidates": exposure(items=tuple(Candidate(item=str(n)) for n in range(513))),
    "too large": exposure(items=(Candidate(item="a", features={"x": "y" * MAX_EVENT_BYTES}),)),
}


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_an_event_that_the_contract_refuses(tmp_path: Path, counted: Counted, name: str) -> None:
    with producer_of("127.0.0.1:9", tmp_path, counted) as producer:
        assert producer.send(BAD_EVENTS[name]) is False  # type: ignore[arg-type]
        assert counted.dropped() == {"invalid": 1}
        assert counted("queue_events") == 0
        producer.close(0.1)


def test_an_event_that_kafka_refuses_stops_nobody(
    broker: LocalBroker, tmp_path: Path, counted: Counted
) -> None:
    options = {"max_request_size": 3000}
    with producer_of(broker.address, tmp_path, counted, kafka=options) as producer:
        large = exposure(items=(Candidate(item="a", features={"x": "y" * 5000}),))
        assert all(producer.send(event) for event in (feedback(1), large, feedback(2)))
        assert producer.flush(30)
        records = read_records(broker.address, FEEDBACK, 2)
    assert {decode_feedback(record.value).event_id for record in records} == {"e1", "e2"}
    assert counted.dropped() == {"refused": 1}


def test_the_largest_event_arrives(broker: LocalBroker, tmp_path: Path, counted: Counted) -> None:
    room = MAX_EVENT_BYTES - 400
    with producer_of(broker.address, tmp_path, counted) as producer:
        assert producer.send(exposure(items=(Candidate(item="a", features={"x": "y" * room}),)))
        assert producer.flush(30)
        (record,) = read_records(broker.address, EXPOSURES, 1)
    assert len(record.value) > room


def test_without_a_disk_events_go_from_memory(
    broker: LocalBroker, tmp_path: Path, counted: Counted
) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    with producer_of(broker.address, tmp_path, counted) as producer:
        assert all(producer.send(event) for event in clicks(100))
        assert producer.flush(30)
        check_order_by_key(read_records(broker.address, FEEDBACK, 100), ids_of(100))
    assert counted("spool_errors_total") == 1


def test_a_disk_that_goes_away(away: LocalBroker, tmp_path: Path, counted: Counted) -> None:
    """The folder vanishes under a running producer: counted, and memory holds what it can."""
    with producer_of(away.address, tmp_path, counted) as producer:
        assert producer.send(feedback(0, request_id="r0"))
        wait_until(lambda: counted("spooled_total") == 1, "the spool works")
        shutil.rmtree(tmp_path / "spool")
        away.start()
        away.create_topics()
        assert producer.flush(30)
        away.kill()
        assert all(producer.send(event) for event in clicks(50, 1))
        wait_until(lambda: counted("spool_errors_total") > 0, "the disk's refusal is counted")
        away.start()
        away.create_topics()
        assert producer.flush(60)
        records = read_records(away.address, FEEDBACK, 50)
        check_order_by_key(records, ids_of(50, 1))
    assert counted.dropped() == {}


def test_threads_share_a_producer(broker: LocalBroker, tmp_path: Path, counted: Counted) -> None:
    with producer_of(broker.address, tmp_path, counted) as producer:

        def work(thread: int) -> None:
            for n in range(200):
                assert producer.send(feedback(thread * 1000 + n, request_id=f"t{thread}"))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert producer.flush(60)
        records = read_records(broker.address, FEEDBACK, 1600)
    check_order_by_key(records, {f"e{t * 1000 + n}" for t in range(8) for n in range(200)})
    assert len(records) == 1600


def test_a_forked_child_has_its_own(broker: LocalBroker, tmp_path: Path, counted: Counted) -> None:
    with producer_of(broker.address, tmp_path, counted) as producer:
        assert all(producer.send(event) for event in clicks(20))
        child = os.fork()
        if not child:
            sent = all(producer.send(event) for event in clicks(20, 20))
            os._exit(0 if sent and producer.flush(30) and producer.close() else 1)
        assert all(producer.send(event) for event in clicks(20, 40))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert producer.flush(30)
        records = read_records(broker.address, FEEDBACK, 60)
    assert sorted(decode_feedback(record.value).event_id for record in records) == sorted(
        ids_of(60)
    )
    assert {folder.name for folder in (tmp_path / "spool").iterdir()} == {"000", "001"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_bytes": 0}, "must be positive"),
        ({"spill_after_s": -1}, "must be positive"),
        ({"kafka": {"acks": 1}}, "acks is fixed"),
        ({"kafka": {"partitioner": print}}, "partitioner is fixed"),
        ({"kafka": {"linger": 5}}, "linger is none of"),
    ],
)
def test_impossible_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EventProducer("127.0.0.1:9", tmp_path, **options)

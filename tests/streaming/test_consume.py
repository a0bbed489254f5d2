"""``python streaming/consume.py`` against a real broker: what goes in, what comes out, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.events import EXPOSURES, FEEDBACK, Event, encode_event
from contracts.reading import write_yaml
from deploy.local_broker import LocalBroker
from deploy.local_s3 import LocalS3
from tests.contracts.examples import spec
from tests.streaming.consume_process import Consumer, dead_letters, rows, send, wait_for
from tests.streaming.lane_records import act, exposure

pytestmark = pytest.mark.timeout(240)
Start = Callable[..., Consumer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts consumers that end with the test."""
    started: list[Consumer] = []

    def begin(*arguments: Any, **named: Any) -> Consumer:
        started.append(Consumer(tmp_path / "consumer", *arguments, **named))
        return started[-1]

    yield begin
    for one in started:
        one.kill()


def now() -> int:
    return int(time.time() * 1000)


def clicked(row: dict[str, Any]) -> list[int]:
    return [place for place, value in enumerate(row["feedback__click"]) if value]


def test_slates_dead_letters_and_restart(broker: LocalBroker, tmp_path: Path, start: Start) -> None:
    table, at = str(tmp_path / "table"), now()
    good = [exposure(f"q{index}", at) for index in range(20)]
    # Feedback before its exposure, twice, and taken back; item i0 is shown at place 1.
    send(broker.address, *(act(f"q{index}", at + 100, f"e{index}") for index in range(20)))
    send(broker.address, *good, *good[:5])
    send(broker.address, act("q0", at + 100, "e0"), act("q1", at + 200, "f1", value=0.0))
    send(broker.address, act("q2", at + 300, "w2", kind="watch", value=7.5, item="i1"))
    bad: dict[str, tuple[str, bytes, bytes] | Event] = {
        "malformed": (FEEDBACK, b"q", b'{"type": "feedback"'),
        "unknown_version": (
            EXPOSURES,
            b"v",
            _with(exposure("v", at), b'"version":1', b'"version":2'),
        ),
        "too_large": (EXPOSURES, b"big", b"x" * (2 << 20)),
        "wrong_key": (EXPOSURES, b"other", encode_event(exposure("k", at))),
        "other_features": exposure("o", at, feature_spec_sha256="0" * 64),
        "feature_value": (EXPOSURES, b"p", _with(exposure("p", at), b"1.5", b'"dear"')),
        "unknown_kind": act("q3", at + 10, "u", kind="purchase"),
        "wrong_value": act("q3", at + 10, "n", value=0.5),
        "future": exposure("tomorrow", at + 86_400_000),
        "conflicting_exposure": exposure("q4", at, user="another"),
        "early_feedback": act("q5", at - 86_400_000 // 2, "early"),
        "item_not_shown": act("q6", at + 10, "hidden", item="i2"),
        "late_feedback": act("q7", at + 2_500, "late"),
        "no_exposure": act("nobody", at + 10, "orphan"),
    }
    send(broker.address, *bad.values())
    consumer = start(broker.address, table).wait_ready()
    assert consumer.ready["lanes"] == [0, 1, 2, 3]
    assert consumer.get("/healthz") == (200, "ok")
    wait_for(lambda: len(rows(table)) >= 20, "rows")
    letters = dead_letters(broker.address, len(bad))
    assert sorted(dict(one.headers)["reason"].decode() for one in letters) == sorted(bad)
    for one in letters:
        reason = dict(one.headers)["reason"].decode()
        event = bad[reason]
        value = event[2] if isinstance(event, tuple) else encode_event(event)
        assert one.value == value, reason
        assert one.key == (event[1] if isinstance(event, tuple) else event.request_id.encode())
    found = {row["request_id"]: row for row in rows(table)}
    assert sorted(found) == sorted(one.request_id for one in good)
    assert len(rows(table)) == 20
    assert [clicked(found[f"q{index}"]) for index in range(3)] == [[1], [], [1]]
    assert found["q2"]["feedback__watch"] == [7.5, None]
    wait_for(lambda: consumer.metric("gref_consumer_rows_total") == 20, "metrics")
    assert consumer.metric("gref_consumer_duplicates_total") == 6
    assert consumer.metric("gref_consumer_dead_letters_total") == len(bad)
    assert consumer.metric("gref_consumer_lag") == 0
    assert consumer.get("/readyz")[0] == 200
    assert consumer.terminate() == 0, consumer.log

    # A restart writes and refuses nothing again, and goes on.
    again = start(broker.address, table).wait_ready()
    at = now()
    send(broker.address, exposure("next", at), act("next", at + 10, "e"))
    wait_for(lambda: len(rows(table)) > 20, "the next slate")
    assert again.metric("gref_consumer_dead_letters_total") == 0
    assert again.terminate() == 0
    assert len(rows(table)) == 21
    assert len(dead_letters(broker.address, len(bad))) == len(bad)


def _with(event: Event, old: bytes, new: bytes) -> bytes:
    raw = encode_event(event)
    if old not in raw:  # a version that is the default is not written
        return raw[:-1] + b"," + new + b"}"
    return raw.replace(old, new)


def test_members_share_lanes_and_take_over(
    broker: LocalBroker, tmp_path: Path, start: Start
) -> None:
    """A second member joins, the first dies without a word; every slate is in the table once."""
    table = str(tmp_path / "table")
    first = start(broker.address, table).wait_ready()
    sent: list[str] = []

    def traffic(count: int) -> None:
        at = now()
        names = [f"r{len(sent) + index}" for index in range(count)]
        sent.extend(names)
        send(broker.address, *(exposure(name, at) for name in names))
        send(broker.address, *(act(name, at + 50, f"e{name}") for name in names))

    traffic(100)
    second = start(broker.address, table).wait_ready()
    traffic(100)
    wait_for(lambda: second.metric("gref_consumer_lanes") == 2, "two lanes each")
    traffic(100)
    first.kill()
    traffic(100)
    wait_for(lambda: second.metric("gref_consumer_lanes") == 4, "all lanes")
    wait_for(lambda: len(rows(table)) >= len(sent), "rows")
    found = rows(table)
    assert sorted(row["request_id"] for row in found) == sorted(sent)
    assert all(clicked(row) == [1] for row in found)
    assert second.terminate() == 0, second.log
    assert dead_letters(broker.address, 0) == []


def test_backlog_whose_inputs_run_apart(broker: LocalBroker, tmp_path: Path, start: Start) -> None:
    """Hours of events at once: the input ahead waits, is read again, and no slate goes without."""
    table, begin, count = str(tmp_path / "table"), now() - 6 * 3_600_000, 3_000
    times = [begin + index * 5_000 for index in range(count)]
    send(broker.address, *(act(f"b{at}", at + 100, "e") for at in times))
    send(broker.address, *(exposure(f"b{at}", at) for at in times))
    consumer = start(broker.address, table, "--commit-rows", 500).wait_ready()
    wait_for(lambda: len(rows(table)) >= count, "rows", 120)
    found = rows(table)
    assert len(found) == count
    assert all(clicked(row) == [1] for row in found)
    assert consumer.terminate() == 0, consumer.log


def test_table_that_cannot_be_written(broker: LocalBroker, tmp_path: Path, start: Start) -> None:
    """Commits fail, the member says so and waits; it gives up with 1, and a restart loses none."""
    table, log = tmp_path / "table", tmp_path / "table" / "_delta_log"
    consumer = start(broker.address, str(table), "--give-up", "6s").wait_ready()
    log.rename(tmp_path / "away")
    at = now()
    send(broker.address, exposure("q", at), act("q", at + 10, "e"))
    answer = wait_for(
        lambda: (found := consumer.get("/readyz"))[0] == 503 and found, "it is not ready"
    )
    assert answer[0] == 503
    assert "commit" in answer[1]
    assert consumer.process.wait(60) == 1, consumer.log
    assert "Nothing is lost" in consumer.log
    (tmp_path / "away").rename(log)
    assert rows(str(table)) == []
    again = start(broker.address, str(table)).wait_ready()
    wait_for(lambda: rows(str(table)), "the row")
    assert again.terminate() == 0
    assert [clicked(row) for row in rows(str(table))] == [[1]]


def test_table_on_s3(
    broker: LocalBroker, s3: LocalS3, bucket: str, tmp_path: Path, start: Start
) -> None:
    table, options = f"s3://{bucket}/feedback", s3.storage_options()
    consumer = start(broker.address, table, environment=s3.environment()).wait_ready()
    at = now()
    send(broker.address, exposure("q", at), act("q", at + 10, "e"))
    wait_for(lambda: rows(table, options), "the row")
    assert consumer.terminate() == 0, consumer.log
    assert [clicked(row) for row in rows(table, options)] == [[1]]


def test_bad_input_is_exit_2(tmp_path: Path, start: Start) -> None:
    """Before a broker is asked for: another spec, a bad duration, a folder that is in use."""
    table, other = str(tmp_path / "table"), tmp_path / "other"
    first = start("127.0.0.1:1", table, "--broker-timeout", "1s")
    assert first.process.wait(60) == 2
    assert "no broker answers" in first.log
    other.mkdir()
    write_yaml(other / "features.yaml", spec(list_size=2))
    second = Consumer(other, "127.0.0.1:1", table)
    assert second.process.wait(60) == 2
    assert "name another table" in second.log
    third = start("127.0.0.1:1", table, "--lateness", "soon")
    assert third.process.wait(60) == 2
    assert "--lateness" in third.log


def test_topics_that_do_not_fit(tmp_path: Path, start: Start) -> None:
    from kafka import KafkaAdminClient

    from contracts.events import DEAD_LETTERS

    with LocalBroker(tmp_path / "broker") as broker:
        missing = start(broker.address, str(tmp_path / "table"))
        assert missing.process.wait(60) == 2
        assert "does not exist" in missing.log
        admin = KafkaAdminClient(bootstrap_servers=broker.address)
        for topic, count in ((EXPOSURES, 2), (FEEDBACK, 3), (DEAD_LETTERS, 1)):
            admin.create_topics({topic: {"num_partitions": count, "replication_factor": 1}})
        admin.close()
        differing = start(broker.address, str(tmp_path / "table"))
        assert differing.process.wait(60) == 2
        assert "2 partitions" in differing.log

"""The local broker and S3: real, durable on S3 over kill -9, and gone with their parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from kafka import KafkaProducer

from contracts.events import EXPOSURES
from deploy.local_broker import LocalBroker
from deploy.local_s3 import LocalS3
from deploy.triton_install import StackError
from deploy.triton_process import start_ticks
from tests.serving.processes import ROOT, wait_until
from tests.streaming.kafka_reading import read_records

pytestmark = pytest.mark.timeout(120)


def send(address: str, values: list[bytes], topic: str = EXPOSURES) -> None:
    producer = KafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True)
    try:
        sent = [producer.send(topic, key=b"k", value=value) for value in values]
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close()


def read_all(address: str, expected: int) -> list[bytes]:
    return [record.value for record in read_records(address, EXPOSURES, expected)]


def test_messages_come_back_in_order(broker: LocalBroker) -> None:
    values = [b"%d" % n for n in range(100)]
    send(broker.address, values)
    assert read_all(broker.address, 100) == values


def test_topics_are_made_once_and_with_the_partitions_asked_for(broker: LocalBroker) -> None:
    broker.create_topics(partitions=4)
    with pytest.raises(StackError, match="4 partitions, not 2"):
        broker.create_topics(partitions=2)


def test_kill_9_on_s3_keeps_messages_and_port(durable_broker: LocalBroker) -> None:
    broker = durable_broker
    before = broker.address
    send(broker.address, [b"one", b"two"])
    broker.kill()
    assert broker.process is not None
    assert broker.process.returncode == -signal.SIGKILL
    broker.start()
    assert broker.address == before
    assert read_all(broker.address, 2) == [b"one", b"two"]
    send(broker.address, [b"three"])
    assert read_all(broker.address, 3) == [b"one", b"two", b"three"]


def test_memory_is_forgotten(broker: LocalBroker) -> None:
    """What the test above would not notice if storage were ignored."""
    send(broker.address, [b"one"])
    broker.kill()
    broker.start()
    broker.create_topics()
    assert read_all(broker.address, 0) == []


def test_a_broker_started_by_a_thread_outlives_the_thread(tmp_path: Path) -> None:
    with LocalBroker(tmp_path) as broker:
        broker.kill()
        thread = threading.Thread(target=broker.start)
        thread.start()
        thread.join()
        broker.create_topics(1)
        assert broker.process is not None
        assert broker.process.poll() is None


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from deploy.local_broker import LocalBroker; from deploy.local_s3 import LocalS3\n"
        "broker, s3 = LocalBroker(Path(sys.argv[1])), LocalS3(Path(sys.argv[1]))\n"
        "broker.start(); s3.start()\n"
        "print(broker.process.pid, s3.process.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.communicate()
    assert len(pids) == 2
    wait_until(lambda: not any(start_ticks(pid) for pid in pids), "the children end")


def test_what_cannot_start_says_why(broker: LocalBroker, tmp_path: Path) -> None:
    port = int(broker.address.rpartition(":")[2])
    with pytest.raises(StackError, match="taken by another program"):
        LocalBroker(tmp_path, port=port).start()
    with pytest.raises(StackError, match=r"it ended with code|broker\.log"):
        LocalBroker(tmp_path / "other", storage="nonsense://").start()


def test_delta_table_on_the_local_s3(s3: LocalS3, bucket: str) -> None:
    url, options = f"s3://{bucket}/table", s3.storage_options()
    for n in range(3):
        write_deltalake(url, pa.table({"n": [n]}), mode="append", storage_options=options)
    table = DeltaTable(url, storage_options=options)
    assert table.version() == 2
    assert sorted(table.to_pyarrow_table()["n"].to_pylist()) == [0, 1, 2]

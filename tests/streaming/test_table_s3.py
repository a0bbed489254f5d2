"""The feedback table on S3: commits are atomic without a lock table, and the commands work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from contracts.feedback_table import lane_app_id
from contracts.reading import ContractError
from deploy.local_s3 import LocalS3
from streaming.feedback_table.opening import create_or_open, open_table
from streaming.table import app
from tests.conftest import ROOT
from tests.streaming.feedback_tables import SPEC, append, slate
from tests.streaming.write_beside import ROWS

#: What is tried again within seconds, so that a dead endpoint is no long test.
HASTY = {"max_retries": "1", "retry_timeout": "2s"}


@pytest.mark.timeout(180)
def test_two_writers_and_a_compaction_land_once_each(
    s3: LocalS3, bucket: str, tmp_path: Path
) -> None:
    uri, options, stop = f"s3://{bucket}/feedback", s3.storage_options(), tmp_path / "stop"
    # What S3 proper needs, and no more: the conditional put is the default.
    options.pop("conditional_put", None)
    create_or_open(uri, SPEC, options)
    before = s3.log.read_text().count('" 412')
    writers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.streaming.write_beside"),
                *(uri, str(stop), str(lane), json.dumps(options)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for lane in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            for number in range(1, 8):
                assert writer.stdout.readline() == f"{number}\n"
        open_table(uri, options)[0].optimize.compact()
        stop.touch()
        counts = [int(writer.communicate(timeout=60)[0].split()[-1]) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert [writer.returncode for writer in writers] == [0, 0]
    table = open_table(uri, options)[0]
    for lane, count in enumerate(counts):
        assert table.transaction_version(lane_app_id("g", lane, "commits")) == count
    ids = table.to_pyarrow_table(columns=["request_id"])["request_id"].to_pylist()
    expected = [
        f"q{(lane + 1) * 100_000 + number:06}"
        for lane, count in enumerate(counts)
        for number in range(count * ROWS)
    ]
    assert sorted(ids) == expected
    refused = s3.log.read_text().count('" 412') - before
    assert refused, "no two commits met: nothing is tested"


@pytest.mark.timeout(120)
def test_commands_on_s3(s3: LocalS3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, options = f"s3://{bucket}/deep/feedback", s3.storage_options()
    create_or_open(uri, SPEC, options)
    append(uri, [slate(number) for number in range(9)], options, commits=4)
    append(uri, [slate(number) for number in range(9, 12)], options, commits=5)
    given = [f"--storage-option={name}={value}" for name, value in options.items()]

    def told(command: str, *more: str, keys: list[str] = given) -> dict[str, object]:
        result = CliRunner().invoke(app, [command, uri, *keys, "--json", *more])
        assert result.exit_code == 0, result.output
        found: dict[str, object] = json.loads(result.stdout)
        return found

    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert told("info")["rows"] == 12
    assert told("validate")["violations"] == []
    assert told("compact")["files_removed"] == 6
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    by_environment: list[str] = []
    info = told("info", keys=by_environment)
    assert (info["files"], info["rows"]) == (3, 12)
    assert [one["lanes"][0]["commits"] for one in info["groups"]] == [5]  # type: ignore[attr-defined]
    freed = told("vacuum", "--retention", "0h", "--force", "--delete", keys=by_environment)
    assert freed["files"] == 6
    assert freed["size_bytes"] > 0  # type: ignore[operator]
    assert told("validate", keys=by_environment)["rows"] == 12
    assert (
        DeltaTable(uri, storage_options=options).transaction_version(lane_app_id("g", 0, "commits"))
        == 5
    )


@pytest.mark.timeout(60)
def test_what_cannot_be_reached_is_bad_input(s3: LocalS3, bucket: str) -> None:
    options = {**s3.storage_options(), **HASTY}
    with pytest.raises(ContractError, match="NoSuchBucket"):
        create_or_open("s3://there-is-none-of-this-name/x", SPEC, options)
    with pytest.raises(ContractError, match="no table there"):
        open_table(f"s3://{bucket}/empty", options)
    dead = {**options, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    with pytest.raises(ContractError, match="storage-option") as error:
        open_table(f"s3://{bucket}/x", dead)
    assert "\x1b" not in str(error.value)

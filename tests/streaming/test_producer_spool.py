"""The spool: a queue on disk against a plain deque, torn and damaged files, full disks, owners."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.spool import Spool, segments_of
from streaming.spool_folder import SpoolFolder
from tests.serving.processes import ROOT

pytestmark = pytest.mark.timeout(120)
LIMIT = 1 << 20

steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.binary(max_size=40), min_size=1, max_size=6)),
        st.tuples(st.just("drop"), st.integers(1, 5)),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=30,
)


def contents(spool: Spool) -> list[bytes]:
    """Everything, taken out."""
    found: list[bytes] = []
    while batch := spool.peek(3, 50):
        found += batch
        spool.drop(len(batch))
    return found


@given(steps)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_it_is_a_queue_whatever_is_done(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    """The oracle is a deque. Segments of 100 bytes, so that there are many."""
    folder = tmp_path_factory.mktemp("spool")
    spool, oracle = Spool(folder, LIMIT, segment_bytes=100), deque[bytes]()
    for action, argument in steps:
        if action == "append":
            assert spool.append(argument) == len(argument)
            oracle.extend(argument)
        elif action == "drop":
            count = min(argument, len(oracle))
            spool.drop(count)
            for _ in range(count):
                oracle.popleft()
        else:  # as after a kill -9: nothing was closed
            spool = Spool(folder, LIMIT, segment_bytes=100)
        assert spool.records == len(oracle)
        head = spool.peek(3, 50)
        assert head == list(oracle)[: len(head)]
        assert bool(head) == bool(oracle)
        assert spool.bytes == sum(path.stat().st_size for path in segments_of(folder))
    assert contents(spool) == list(oracle)
    assert spool.damaged_bytes == 0
    assert (spool.records, spool.bytes, segments_of(folder)) == (0, 0, [])


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=8), st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_torn_end_costs_the_torn_record_alone(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], data: st.DataObject
) -> None:
    """Cut at every place, and with one byte changed: what comes back is a prefix."""
    folder = tmp_path_factory.mktemp("spool")
    Spool(folder, LIMIT).append(records)
    (path,) = segments_of(folder)
    whole = path.read_bytes()
    ends = [16]
    for record in records:
        ends.append(ends[-1] + 8 + len(record))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:at])
    else:
        at = data.draw(st.integers(16, len(whole) - 1))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
    size = path.stat().st_size
    spool = Spool(folder, LIMIT)
    intact = sum(end <= at for end in ends[1:])
    assert spool.append([b"new"]) == 1
    assert contents(spool) == [*records[:intact], b"new"]
    lost = size - (ends[intact] if at >= 16 else 0)
    assert spool.damaged_bytes == lost


def test_the_bound_holds_and_room_comes_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=1000, segment_bytes=200)
    records = [bytes([n]) * 50 for n in range(40)]
    taken = spool.append(records)
    assert 0 < taken < 17
    assert spool.append(records[taken:]) == 0
    assert sum(path.stat().st_size for path in segments_of(tmp_path)) <= 1000
    spool.drop(8)
    assert spool.append(records[taken : taken + 2]) == 2
    assert contents(spool) == records[8 : taken + 2]
    assert spool.append([b"x" * 2000]) == 0, "one that never fits"


def test_segments_that_vanish_are_given_up_and_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT, segment_bytes=100)
    spool.append([b"a" * 90, b"b" * 90, b"c" * 90])
    segments_of(tmp_path)[1].unlink()
    assert contents(spool) == [b"a" * 90, b"c" * 90]
    assert spool.damaged_bytes == 98
    assert (spool.records, spool.bytes) == (0, 0)


def test_a_full_disk_tears_nothing(tmp_path: Path) -> None:
    """A real limit of the file size: the write that crosses it fails half-way."""
    spool = Spool(tmp_path, LIMIT)
    assert spool.append([b"a" * 500]) == 1
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (800, before[1]))
        with pytest.raises(OSError, match="File too large"):
            spool.append([b"b" * 500])
        assert spool.append([b"c" * 100]) == 1, "a segment of its own, which is small enough"
        with pytest.raises(OSError, match="File too large"):
            spool.append([b"d" * 2000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert spool.append([b"e"]) == 1
    assert spool.bytes == sum(path.stat().st_size for path in segments_of(tmp_path))
    again = Spool(tmp_path, LIMIT)
    assert contents(again) == [b"a" * 500, b"c" * 100, b"e"]
    assert again.damaged_bytes == 0


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """A process that appends numbers for ever is killed; what it reported is all there."""
    script = (
        "import sys; from pathlib import Path; from streaming.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 1 << 30, 1 << 16)\n"
        "for n in range(10**9):\n"
        "    spool.append([b'%d' % n * 20]); print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(3000):
        process.stdout.readline()
    process.kill()
    reported = int((process.communicate()[0].split() or ["2999"])[-1])
    found = contents(Spool(tmp_path, 1 << 30))
    assert found == [b"%d" % n * 20 for n in range(len(found))]
    assert len(found) >= reported


def test_folders_have_one_owner_and_the_dead_leave_theirs(tmp_path: Path) -> None:
    first, second, third = (SpoolFolder(tmp_path) for _ in range(3))
    names = [one.path.name for one in (first, second, third)]
    assert names == ["000", "001", "002"]
    for n, one in enumerate((first, second, third)):
        Spool(one.path, LIMIT, 10).append([b"%d-%d" % (n, k) for k in range(3)])
    second.release()
    third.release()
    heir = SpoolFolder(tmp_path)
    assert heir.path.name == "001"
    assert contents(Spool(heir.path, LIMIT)) == [
        b"%d-%d" % (n, k) for n in (1, 2) for k in range(3)
    ]
    assert contents(Spool(first.path, LIMIT)) == [b"0-0", b"0-1", b"0-2"], "its owner lives"


def test_a_forked_child_lets_go_of_the_folder(tmp_path: Path) -> None:
    """A child that keeps the lock would keep the heir out after its parent's death."""
    folder = SpoolFolder(tmp_path)
    ready, released = os.pipe()
    child = os.fork()
    if not child:
        folder.release()
        os.write(released, b"x")
        signal.pause()
    os.read(ready, 1)
    folder.release()
    try:
        assert SpoolFolder(tmp_path).path.name == "000"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="Not a directory"):
        SpoolFolder(tmp_path / "file" / "spool")

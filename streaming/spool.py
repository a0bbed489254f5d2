"""Records on disk, first in first out, within a bound: events that could not be sent yet.

A spool is a folder of segments, ``000000000000.spool`` and so on, oldest first. A segment is a
header (magic, offset of the first record that is still needed) and records (length, CRC-32,
payload). What a crash left half-written fails its checksum and ends the segment; a later process
writes to a segment of its own. Nothing is synced: records outlive a kill -9 of the process, and
a power failure may take the last seconds.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".spool"
_MAGIC = b"GREFSP01"
_HEADER = struct.Struct("<8sQ")
_RECORD = struct.Struct("<II")


@dataclass
class _Segment:
    """Offsets of the first record that is still needed, and behind the last whole one."""

    path: Path
    start: int
    end: int
    records: int


class Spool:
    """A queue of byte strings in a folder. Not thread-safe; one process owns the folder.

    Attributes:
        records: how many are in it.
        bytes: of the segments, headers and records that are no longer needed included.
        damaged_bytes: seen in segments that a crash or the disk damaged; their records are lost.
    """

    def __init__(self, folder: Path, limit_bytes: int, segment_bytes: int = 1 << 20) -> None:
        """Open a folder, made if it is absent, with what an earlier process left in it.

        Args:
            limit_bytes: bound of ``bytes``; beyond it ``append`` takes no more.
            segment_bytes: a segment that has grown this large is followed by another.

        Raises:
            OSError: the folder cannot be made or read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._segments: deque[_Segment] = deque()
        self._file: FileIO | None = None  # of the last segment, while it is written to
        self._number = 0
        self.records = self.bytes = self.damaged_bytes = 0
        for path in segments_of(folder):
            self._recover(path)
            self._number = int(path.stem) + 1

    def append(self, records: Sequence[bytes]) -> int:
        """Write records at the end; returns how many there was room for, from the first on.

        Raises:
            OSError: not one could be written; the disk is full or broken. Nothing is torn.
        """
        written = 0
        while written < len(records):
            try:
                count = self._append_some(records[written:])
            except OSError:
                if not written:
                    raise
                break  # what was written counts; the next call meets the error again
            if not count:
                break
            written += count
        return written

    def peek(self, max_records: int, max_bytes: int) -> list[bytes]:
        """The first records, as many as the bounds and one segment hold; one at least.

        Empty only if the spool is. Records that cannot be read back are given up on and counted.
        """
        while self._segments:
            segment = self._segments[0]
            found: list[bytes] = []
            size = 0
            with suppress(OSError), segment.path.open("rb") as file:
                file.seek(segment.start)
                while len(found) < min(max_records, segment.records):
                    payload = _read_record(file)
                    if payload is None or (found and size + len(payload) > max_bytes):
                        break
                    found.append(payload)
                    size += len(payload)
            if found:
                return found
            self.damaged_bytes += segment.end - segment.start
            self._remove_first()
        return []

    def drop(self, count: int) -> None:
        """Forget the first records: they have arrived."""
        while count and self._segments:
            segment = self._segments[0]
            if count >= segment.records:
                count -= segment.records
                self._remove_first()
                continue
            with suppress(OSError), segment.path.open("r+b", buffering=0) as file:
                start = segment.start
                for _ in range(count):
                    length, _crc = _RECORD.unpack(os.pread(file.fileno(), _RECORD.size, start))
                    start += _RECORD.size + length
                segment.start = start
                os.pwrite(file.fileno(), _HEADER.pack(_MAGIC, start), 0)
            segment.records -= count
            self.records -= count
            return

    def close(self) -> None:
        """Let go of the files; what is in them stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append_some(self, records: Sequence[bytes]) -> int:
        """Write what fits into the last segment, in one piece."""
        if self._file is None or self._segments[-1].end >= self._segment_bytes:
            if self.bytes + _HEADER.size + _RECORD.size + len(records[0]) > self._limit_bytes:
                return 0
            self._new_segment()
        segment, file = self._segments[-1], self._file
        assert file is not None
        piece, count = bytearray(), 0
        for record in records:
            if self.bytes + len(piece) + _RECORD.size + len(record) > self._limit_bytes:
                break
            piece += _RECORD.pack(len(record), zlib.crc32(record)) + record
            count += 1
            if segment.end + len(piece) >= self._segment_bytes:
                break
        try:
            _write_all(file, bytes(piece))
        except OSError:
            with suppress(OSError):  # if this fails too, the checksum tells
                file.truncate(segment.end)
                file.seek(segment.end)
            self.close()  # the next attempt begins a segment of its own
            if not segment.records:
                self._segments.pop()
                self.bytes -= segment.end
                with suppress(OSError):
                    segment.path.unlink()
            raise
        segment.end += len(piece)
        segment.records += count
        self.records += count
        self.bytes += len(piece)
        return count

    def _new_segment(self) -> None:
        self.close()
        path = self._folder / f"{self._number:012d}{SUFFIX}"
        file = FileIO(path, "xb")
        try:
            _write_all(file, _HEADER.pack(_MAGIC, _HEADER.size))
        except OSError:
            file.close()
            with suppress(OSError):
                path.unlink()
            raise
        self._number += 1
        self._file = file
        self._segments.append(_Segment(path, _HEADER.size, _HEADER.size, 0))
        self.bytes += _HEADER.size

    def _remove_first(self) -> None:
        segment = self._segments.popleft()
        if not self._segments:
            self.close()
        self.records -= segment.records
        self.bytes -= segment.end
        with suppress(OSError):  # it would be sent again, which does no harm
            segment.path.unlink()

    def _recover(self, path: Path) -> None:
        """Take in a segment that an earlier process left, up to its first damaged record."""
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            whole = len(header) == _HEADER.size and header.startswith(_MAGIC)
            wanted = _HEADER.unpack(header)[1] if whole else 0
            ends = [_HEADER.size]
            while whole and _read_record(file) is not None:
                ends.append(file.tell())
        start = wanted if wanted in set(ends) else ends[0]
        self.damaged_bytes += max(0, size - ends[-1]) if whole else size
        left = len(ends) - 1 - ends.index(start)
        if not left:
            path.unlink()
            return
        self._segments.append(_Segment(path, start, ends[-1], left))
        self.records += left
        self.bytes += ends[-1]


def segments_of(folder: Path) -> list[Path]:
    """The segments of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def _read_record(file: BinaryIO) -> bytes | None:
    """The next record; None at the end, or where it is torn or damaged."""
    head = file.read(_RECORD.size)
    if len(head) < _RECORD.size:
        return None
    length, crc = _RECORD.unpack(head)
    left = os.fstat(file.fileno()).st_size - file.tell()
    if length > left:
        return None
    payload = file.read(length)
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def _write_all(file: FileIO, data: bytes) -> None:
    """Write everything; a nearly full disk takes a part first and raises then."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]

"""Results on disk: a JSON line each, and the lists' metrics from which differences are paired.

::

    results/
      CASE.jsonl           Row, one a line; the last of a key counts; a case's variants with it
      lists/CASE-ID.npz    the case's test lists: users [S], label and shown [S, L]
      lists/KEY.npz        a row's metrics of each list [S], and ``place`` [S, L] of shown items

Appended under a lock and synced, lists before their line: a line that stands is whole, and a torn
last line (a machine that lost power) is left out and written over.
"""

from __future__ import annotations

import fcntl
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.reading import ContractError, Strict, stable_hash

Arrays = dict[str, npt.NDArray[Any]]


class Measured(Strict, kw_only=True, frozen=True):
    """A metric over the test lists, 95 % over users, and its difference to the given order."""

    value: float
    low: float
    high: float
    over_given: tuple[float, float, float] | None = None


class Row(Strict, kw_only=True, frozen=True):
    """What one training gave.

    Attributes:
        role: ``trial`` looks for settings, judged on held-out logs alone; ``final`` is of the
            settings found, with a seed of its own, judged on the test lists.
        control: ``shuffled`` is trained on shuffled feedback.
        trial: which of the method's trials these settings are (0: its defaults).
        trials: among how many they were chosen.
        settings: all of the method's settings.
        data: identity of the case's slates. code: hash of the code that the result depends on; of
            a trial ``SYSTEM+JUDGE``.
        held_out: score on held-out logs by which trials are chosen; None where there is none.
        epoch: the chosen one. alarm: why training stopped, or "".
        scalars: what GReF's last epoch logged: losses, log-probabilities, held-out scores.
        cpu_seconds: processor time of training. parameters: trained numbers.
        latency_ms: processor time of one request, eager, one thread, median; latency_ratio: over
            GReF's untrained network in the same minute.
        metrics: of a final row, by name.
        machine: versions of torch and python; model of the CPU, its cores, and the device.
    """

    case: str
    method: str
    seed: int
    role: Literal["trial", "final"]
    control: Literal["none", "shuffled"] = "none"
    trial: int
    trials: int
    settings: dict[str, Any]
    data: str
    code: str
    held_out: float | None = None
    epoch: int = 0
    alarm: str = ""
    scalars: dict[str, float] = msgspec.field(default_factory=dict)
    cpu_seconds: float = 0.0
    parameters: int = 0
    latency_ms: float | None = None
    latency_ratio: float | None = None
    lists: int = 0
    users: int = 0
    metrics: dict[str, Measured] = msgspec.field(default_factory=dict)
    machine: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def system_code(self) -> str:
        """State of the method's own code, without its judge's."""
        return self.code.partition("+")[0]

    @property
    def key(self) -> str:
        """What identifies a result: the same key is the same training."""
        return key_of(
            self.case, self.method, self.seed, self.role, self.control,
            self.settings, self.data, self.code,
        )  # fmt: skip


def key_of(
    case: str,
    method: str,
    seed: int,
    role: str,
    control: str,
    settings: Mapping[str, Any],
    data: str,
    code: str,
) -> str:
    """Sixteen hex digits of what a result depends on."""
    return stable_hash([case, method, seed, role, control, dict(settings), data, code])[:16]


class Store:
    """Stored results of a folder; several processes may append to one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, case: str) -> Path:
        """Where the rows of a case and of its variants (``+share=...``) stand."""
        return self.folder / f"{case.split('+')[0]}.jsonl"

    def rows(self) -> dict[str, Row]:
        """Rows by key; a case's in the order in which they were first written.

        Raises:
            ContractError: a line other than a torn last one is damaged.
        """
        rows: dict[str, Row] = {}
        for file in sorted(self.folder.glob("*.jsonl")):
            lines = file.read_bytes().split(b"\n")[:-1]  # what stands after the last was torn
            for number, line in enumerate(lines, start=1):
                try:
                    row = msgspec.json.decode(line, type=Row)
                except msgspec.DecodeError as error:
                    raise ContractError(
                        f"{file}: line {number} is not a result: {error}; remove the line, and "
                        "training/compare.py makes it again"
                    ) from error
                rows[row.key] = row
        return rows

    def add(self, row: Row, lists: Arrays | None = None, case: Arrays | None = None) -> None:
        """Write a row, durably; its lists first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if lists is not None:
            self._save(row.key, lists)
        if case is not None and not self.has_case(row.case, row.data, case):
            self._save(case_key(row.case, row.data), case)
        with self.file(row.case).open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
            file.write(msgspec.json.encode(row) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lists(self, row: Row) -> Arrays:
        """A row's metrics by list; ContractError where its file is gone."""
        return self._load(row.key)

    def case_lists(self, row: Row) -> Arrays:
        """The test lists of a row's case."""
        return self._load(case_key(row.case, row.data))

    def has_case(self, case: str, data: str, arrays: Arrays) -> bool:
        """Whether the test lists of a case are stored.

        Raises:
            ContractError: others than these are.
        """
        key = case_key(case, data)
        if not self._lists(key).exists():
            return False
        kept = self._load(key)
        if any(not np.array_equal(kept[name], value) for name, value in arrays.items()):
            raise ContractError(
                f"{self._lists(key)}: stored results are of other test lists than these, so what "
                "makes slates has changed; keep new results in another folder (--results)"
            )
        return True

    def _lists(self, key: str) -> Path:
        return self.folder / "lists" / f"{key}.npz"

    def _save(self, key: str, arrays: Arrays) -> None:
        path = self._lists(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with aside.open("wb") as file:
                file.write(packed.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def _load(self, key: str) -> Arrays:
        path = self._lists(key)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ContractError(
                f"{path}: cannot be read: {error}; restore it (git checkout), or remove it and "
                f"the lines of its case in {self.folder}: training/compare.py makes them again"
            ) from error


def case_key(case: str, data: str) -> str:
    """Name of the file with the test lists of a case, of slates of this identity."""
    return f"{case}-{data[:8]}"

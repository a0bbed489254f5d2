"""Request ids that stand in a table more than once, found in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

#: Ids hashed in one pass: 256 MiB. A table with more is read once for each such part of it.
ROWS_A_PASS = 1 << 25

Batches = Callable[[], Iterable[pa.RecordBatch]]


def duplicates(
    batches: Batches, rows: int, examples: int, rows_a_pass: int = ROWS_A_PASS
) -> tuple[int, tuple[str, ...]]:
    """How many rows are second or later ones of their request_id, and some of those ids.

    Args:
        batches: reads the table's column request_id from the start, each time it is called.
        rows: about how many rows there are.
        examples: how many ids to name.
        rows_a_pass: bounds the memory, at 8 bytes a row.
    """
    passes = max(1, -(-rows // rows_a_pass))
    surplus, suspects = 0, set[int]()
    for part in range(passes):
        hashes = np.concatenate(
            [np.zeros(0, np.uint64), *(_part(one, part, passes) for one in _hashes(batches()))]
        )
        hashes.sort()
        same = hashes[1:] == hashes[:-1]
        surplus += int(same.sum())
        suspects.update(int(one) for one in np.unique(hashes[1:][same])[:examples])
    if not surplus:
        return 0, ()
    # The hash only points: what is named as an example was compared letter by letter.
    seen: Counter[str] = Counter()
    for batch in batches():
        for text in batch.column("request_id").to_pylist():
            if text is not None and xxhash.xxh3_64_intdigest(text.encode()) in suspects:
                seen[text] += 1
    return surplus, tuple(sorted(text for text, count in seen.items() if count > 1)[:examples])


def _hashes(batches: Iterable[pa.RecordBatch]) -> Iterator[npt.NDArray[np.uint64]]:
    for batch in batches:
        texts = batch.column("request_id").drop_null().cast(pa.binary()).to_pylist()
        yield np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts))


def _part(hashes: npt.NDArray[np.uint64], part: int, passes: int) -> npt.NDArray[np.uint64]:
    return hashes if passes == 1 else hashes[hashes % np.uint64(passes) == np.uint64(part)]

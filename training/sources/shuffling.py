"""The control of every claimed gain: the same lists with the feedback of other lists.

What stands at each position of a list stays one list's feedback, so position bias and the number
of clicks per list keep their distribution; only the tie to the items is cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np

from contracts.slates import Slate

BLOCK = 4096


def shuffled_feedback(
    pairs: Iterable[tuple[str, Slate]], splits: Sequence[str], seed: int
) -> Iterator[tuple[str, Slate]]:
    """Permute feedback among the lists of a split that are of one length, block by block.

    Feedback keeps its delay after the list's time. Other splits pass through. Memory holds one
    block of each split.
    """
    rng = np.random.default_rng(seed)
    blocks: dict[str, list[Slate]] = {split: [] for split in splits}
    for split, slate in pairs:
        if split not in blocks:
            yield split, slate
            continue
        blocks[split].append(slate)
        if len(blocks[split]) == BLOCK:
            block, blocks[split] = blocks[split], []
            yield from ((split, one) for one in _permute(block, rng))
    for split, block in blocks.items():
        yield from ((split, one) for one in _permute(block, rng))


def _permute(slates: list[Slate], rng: np.random.Generator) -> Iterator[Slate]:
    by_length = defaultdict(list)
    for row, slate in enumerate(slates):
        by_length[len(slate.exposed)].append(row)
    donor = np.arange(len(slates))
    for rows in by_length.values():
        donor[rows] = rng.permutation(rows)
    for slate, index in zip(slates, donor.tolist()):
        other = slates[index]
        shift = slate.time - other.time
        moved = [msgspec.structs.replace(one, time=one.time + shift) for one in other.feedback]
        yield msgspec.structs.replace(slate, feedback=tuple(moved))

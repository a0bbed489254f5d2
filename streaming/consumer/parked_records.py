"""A way around a fault of kafka-python 3.0 that would stop a lane for good.

Records of a partition that is paused with some of a fetch left over are parked, and parked
partitions are not fetched. After ``resume`` they are taken out again only where the slot for the
partition in turn is None; but a partition that was read to its end stays in that slot, empty. So
where no other partition brings anything, what is parked stays there, without a word.
"""

from __future__ import annotations

from typing import Any


def release(consumer: Any) -> None:
    """Call before each poll: empties the slot of a partition that has nothing left.

    Harmless where kafka-python has mended it or is built differently.
    """
    fetcher: Any = getattr(consumer, "_fetcher", None)
    in_turn = getattr(fetcher, "_next_partition_records", None)
    if in_turn is not None and not in_turn:
        fetcher._next_partition_records = None

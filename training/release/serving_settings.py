"""How a release is served: what publishing decides beyond the engines."""

from __future__ import annotations

from typing import Literal, Optional

from contracts.reading import Strict

#: Chosen by measurement (benchmarks/load.py), 32 callers on two cores.
_JOINED = 16


class ServingSettings(Strict, kw_only=True, frozen=True):
    """Settings of the stamped Triton configurations.

    Attributes:
        profile: ``cpu`` is Triton's python backend with TorchScript; ``gpu`` its pytorch backend
            with the same engines; ``tensorrt`` and ``aoti`` want engines of their own
            (training/release/profiles.py).
        max_batch_size: rows of one engine call.
        instances: processes of each engine. Each holds a copy of the weights.
        intra_op_threads: torch threads of each process, in profile ``cpu``; instances x threads
            x 2 engines should not exceed the cores, or the processes take turns and the slowest
            requests suffer.
        warmup: run every candidate bucket twice, alone and as a batch, before the model counts as
            ready; the first two calls of a TorchScript engine are slow.
        warmup_batches: the sizes of those batches; sizes above ``max_batch_size`` are left out.
        batching: join requests of one bucket that wait for an engine into one call.
        preferred_batch_sizes: a joined batch grows no further than the largest of them; empty: up
            to ``max_batch_size``. Left out, it is 16 in profile ``cpu``, so that encoder and
            decoder work at the same time on two batches instead of by turns on one.
        max_queue_delay_us: microseconds that a request is held back in the hope of company. 0 joins
            only what waits anyway.
        max_queue_size: requests that may wait for an engine; more are refused at once. 0 sets no
            bound: with one, Triton prefetches no longer, which costs half of the throughput and
            lets single requests wait for half a second (docs/serving.md). Not without ``batching``.
    """

    profile: Literal["cpu", "gpu", "tensorrt", "aoti"] = "cpu"
    max_batch_size: int = 64
    instances: int = 1
    intra_op_threads: int = 1
    warmup: bool = True
    warmup_batches: tuple[int, ...] = (1, 8)
    batching: bool = True
    preferred_batch_sizes: Optional[tuple[int, ...]] = None
    max_queue_delay_us: int = 0
    max_queue_size: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("max_batch_size", 1, 1024),
            ("instances", 1, 256),
            ("intra_op_threads", 1, 256),
            ("max_queue_delay_us", 0, 1_000_000),
            ("max_queue_size", 0, 1_000_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; allowed: {low} to {high}")
        if self.max_queue_size and not self.batching:
            raise ValueError(
                "max_queue_size is set without batching; allowed: 0, Triton has no such bound then"
            )
        if any(not 1 <= size <= self.max_batch_size for size in self.preferred_batch_sizes or ()):
            raise ValueError(
                f"preferred_batch_sizes is {self.preferred_batch_sizes}; "
                f"allowed: sizes from 1 to max_batch_size, {self.max_batch_size}"
            )
        if any(size < 1 for size in self.warmup_batches):
            raise ValueError(
                f"warmup_batches is {self.warmup_batches}; allowed: sizes of 1 or more"
            )

    @property
    def joined_sizes(self) -> tuple[int, ...]:
        """``preferred_batch_sizes`` as they are served."""
        if self.preferred_batch_sizes is not None:
            return self.preferred_batch_sizes
        return (_JOINED,) if self.profile == "cpu" and self.max_batch_size >= _JOINED else ()

"""What ``handlers/archive.py`` packs and ``handlers/torchserve_handler.py`` finds."""

from __future__ import annotations

from typing import Literal

from contracts.reading import Strict

#: Files of a model archive beside the handler and the package ``contracts``.
ENCODER, DECODER, FEATURES = "encoder.pt", "decoder.pt", "features.yaml"
MODEL_CONFIG = "model-config.yaml"
#: What TorchServe can run: its worker has torch and no other engine.
FORMATS = ("torchscript",)


class HandlerSettings(Strict, kw_only=True, frozen=True):
    """What the handler itself reads from ``model-config.yaml``.

    Attributes:
        intra_op_threads: torch threads of each worker; more than cores make slow requests slower.
        warmup: run each candidate bucket twice before the worker is ready, so that no user pays
            for TorchScript's first calls.
    """

    intra_op_threads: int = 1
    warmup: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.intra_op_threads <= 1024:
            raise ValueError(f"intra_op_threads is {self.intra_op_threads}; allowed: 1 to 1024")


class TorchServeSettings(Strict, kw_only=True, frozen=True, rename="camel"):
    """``model-config.yaml``, with TorchServe's own names for its keys.

    Attributes:
        min_workers, max_workers: processes, each with both engines in memory.
        batch_size: requests that a worker is handed at once, at most.
        max_batch_delay: milliseconds that a request waits for company, alone or not. TorchServe
            takes 0 for "not set" and waits 100, so the least is 1.
        response_timeout: seconds after which TorchServe kills a worker that does not answer.
        startup_timeout: seconds for loading and warm-up.
        job_queue_size: requests that may wait; beyond it they are refused at once (503).
        max_retry_timeout_in_sec: for how long TorchServe tries to start a worker that dies.
    """

    min_workers: int = 1
    max_workers: int = 1
    batch_size: int = 64
    max_batch_delay: int = 1
    response_timeout: int = 10
    startup_timeout: int = 120
    job_queue_size: int = 256
    max_retry_timeout_in_sec: int = 60
    device_type: Literal["cpu"] = "cpu"
    handler: HandlerSettings = HandlerSettings()

    def __post_init__(self) -> None:
        for name, least in (
            ("min_workers", 1),
            ("max_workers", self.min_workers),
            ("batch_size", 1),
            ("max_batch_delay", 1),
            ("response_timeout", 1),
            ("startup_timeout", 1),
            ("job_queue_size", 1),
            ("max_retry_timeout_in_sec", 1),
        ):
            value = getattr(self, name)
            if not least <= value <= 1_000_000:
                raise ValueError(f"{name} is {value}; allowed: {least} to 1000000")


def archive_name(release: str) -> str:
    """The model that TorchServe serves: r0007 -> gref_r0007, as Triton's ensemble is called."""
    return f"gref_{release}"

"""Slates that a small policy has logged, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.model.tiny import SPEC, random_batch
from training.data.arrays import SlateArrays
from training.decoding.omtp import OmtpDecode
from training.model.gen_reranker import GenReranker


def slate_arrays(counts: list[int], seed: int = 0, users: int = 40, **changes: Any) -> SlateArrays:
    """Requests with random lists of all candidates; ``changes`` replace whole arrays."""
    batch = random_batch(counts, seed=seed)
    rng = np.random.default_rng(seed)
    arrays = {
        name: getattr(batch, name).numpy()
        for name in (
            "item_cat",
            "item_dense",
            "user_cat",
            "user_dense",
            "count",
            "exposed",
            "feedback",
        )
    }
    size = len(counts)
    made = {
        **arrays,
        "spec": SPEC,
        "request_id": np.array([f"r{row}" for row in range(size)], object),
        "user": np.array([f"u{one}" for one in rng.integers(users, size=size)], object),
        "time": np.arange(size),
        "items": np.full(arrays["item_cat"].shape[:2], "i", object),
        "utility_scale": 1.0,
        "log_prob": np.full(arrays["exposed"].shape, np.nan),
        "temperature": np.zeros(size),
        "fallback": np.full(size, "", object),
    }
    return SlateArrays(**{**made, **changes})


def logged_by(
    model: GenReranker, counts: list[int], length: int, temperature: float, seed: int = 0
) -> SlateArrays:
    """Slates with the lists that the decode module served, and the log_prob it gave."""
    slates = slate_arrays(counts, seed)
    rows = np.arange(len(slates))
    z, prior = model.encode(slates.batch(rows))
    order, log_prob, _ = OmtpDecode(model.decoder, length)(
        z,
        prior,
        torch.full([len(rows), 1], temperature),
        torch.from_numpy(rows).unsqueeze(1) + 1000 * seed,
    )
    exposed = order.long().numpy()
    clicks = np.random.default_rng(seed).random(exposed.shape) < 0.3
    feedback = np.stack([clicks, clicks], -1) * (exposed >= 0)[:, :, None]
    known = np.where(exposed >= 0, log_prob.double().numpy(), np.nan)
    arrays = {name: getattr(slates, name) for name in ("user", "item_cat", "item_dense")}
    arrays |= {name: getattr(slates, name) for name in ("user_cat", "user_dense", "count")}
    return slate_arrays(
        counts,
        seed,
        **arrays,
        exposed=exposed,
        feedback=feedback.astype(np.float32),
        log_prob=known,
        temperature=np.full(len(rows), temperature),
    )

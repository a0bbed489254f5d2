"""Decodes the lists of whole splits."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.data.arrays import SlateArrays
from training.decoding.omtp import OmtpDecode
from training.decoding.verified import VerifiedDecode
from training.model.gen_reranker import GenReranker

Mode = Literal["omtp", "one_at_a_time", "verified"]


def make_decode(model: GenReranker, list_size: int, mode: Mode = "omtp") -> nn.Module:
    """The decode module of a mode, in eval mode."""
    if mode == "verified":
        return VerifiedDecode(model.decoder, list_size).eval()
    return OmtpDecode(model.decoder, list_size, 1 if mode == "one_at_a_time" else None).eval()


def decode_slates(
    model: GenReranker,
    slates: SlateArrays,
    list_size: int,
    device: torch.device | None = None,
    mode: Mode = "omtp",
    batch_size: int = 512,
) -> npt.NDArray[np.int64]:
    """Greedy lists from all candidates of each slate [S, n], -1 once all are shown."""
    device = device or torch.device("cpu")
    was_training = model.training
    model.eval()
    decode = make_decode(model, list_size, mode)
    orders = []
    with torch.inference_mode():
        for batch in slates.batches(batch_size, device):
            z, prior = model.encode(batch)
            cold = torch.zeros(batch.size, 1, device=device)
            order, _, _ = decode(z, prior, cold, cold.long())
            orders.append(order.cpu().numpy().astype(np.int64))
    model.train(was_training)
    return np.concatenate(orders)

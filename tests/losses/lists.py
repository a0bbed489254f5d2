"""Random logits and lists, for the oracle as plain lists and for the losses as padded tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass(frozen=True)
class Lists:
    """Lists of several lengths over one candidate set each, with gains for every item."""

    logits_BNHM: Tensor
    lists_BN: Tensor
    gain_BN: Tensor
    plain: list[list[int]]
    gains: list[list[float]]

    @property
    def heads(self) -> int:
        return self.logits_BNHM.size(2)


def random_lists(lengths: list[int], candidates: int, heads: int, seed: int) -> Lists:
    rng = np.random.default_rng(seed)
    rows, longest = len(lengths), max(1, *lengths)
    logits = torch.from_numpy(rng.normal(0, 2, (rows, longest, heads, candidates))).float()
    lists = torch.full([rows, longest], -1)
    gain = torch.full([rows, longest], 9.0)  # rubbish beyond the end
    plain, gains = [], []
    for row, length in enumerate(lengths):
        y = rng.permutation(candidates)[:length]
        # Few distinct gains, so that ties and windows without any difference are common.
        g = rng.choice([0.0, 0.0, 1.0, 0.5], length)
        lists[row, :length], gain[row, :length] = torch.from_numpy(y), torch.from_numpy(g).float()
        plain.append(y.tolist())
        gains.append(g.tolist())
    return Lists(logits, lists, gain, plain, gains)


@st.composite
def lists(draw: st.DrawFn, max_heads: int = 4) -> Lists:
    candidates = draw(st.integers(1, 7))
    lengths = draw(st.lists(st.integers(0, candidates), min_size=1, max_size=4))
    return random_lists(
        lengths, candidates, draw(st.integers(1, max_heads)), draw(st.integers(0, 2**31))
    )

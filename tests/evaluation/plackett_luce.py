"""Plackett-Luce policies over known scores: exact log-probabilities, next items and draws.

Axes: S requests, N list positions, M candidates.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlackettLuce:
    """Draws without replacement from softmax(keys); ``keys`` [S, M] are scores over temperature."""

    keys: Floats

    def draw(self, length: int, rng: np.random.Generator) -> Ints:
        """Lists [S, N]."""
        noisy = self.keys + rng.gumbel(size=self.keys.shape)
        return np.argsort(-noisy, axis=1)[:, :length]

    def next_item(self, lists: Ints) -> Floats:
        """Probability of each candidate at each position, given the list before it [S, N, M]."""
        taken = np.zeros((*lists.shape, self.keys.shape[1]), bool)
        for place in range(1, lists.shape[1]):
            taken[:, place] = taken[:, place - 1]
            np.put_along_axis(taken[:, place], lists[:, place - 1 : place], True, axis=1)
        left = np.where(taken, 0.0, np.exp(self.keys - self.keys.max(1, keepdims=True))[:, None])
        return left / left.sum(axis=2, keepdims=True)

    def log_prob(self, lists: Ints) -> Floats:
        """Of each choice given those before it [S, N]."""
        chosen = np.take_along_axis(self.next_item(lists), lists[:, :, None], axis=2)
        return np.log(chosen[:, :, 0])

    def marginals(self, length: int) -> Floats:
        """Exact probability of each candidate at each position [S, N, M], for up to three.

        With p the softmax of the keys, a list (a, b, c) has the probability
        p_a * p_b / (1 - p_a) * p_c / (1 - p_a - p_b).
        """
        assert length <= 3
        p = np.exp(self.keys - self.keys.max(1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        distinct = 1 - np.eye(p.shape[1])
        pairs = (p / (1 - p))[:, :, None] * p[:, None, :] * distinct
        left = 1 - p[:, :, None] - p[:, None, :]
        free = distinct[:, :, None] * distinct[:, None, :] * distinct[None]
        last = np.divide(pairs, left, out=np.zeros_like(pairs), where=distinct > 0)
        third = np.einsum("sab,abc->sc", last, free) * p
        return np.stack([p, pairs.sum(axis=1), third], axis=1)[:, :length]


def all_lists(candidates: int, length: int) -> Ints:
    """Every list of ``length`` of the candidates [P, N]."""
    return np.array(list(itertools.permutations(range(candidates), length)))

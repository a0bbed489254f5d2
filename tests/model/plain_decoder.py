"""The decoder of paper.md written a second time, for one request, in loops and without a cache.

Float64, one list at a time, from the definition: [BOS], y_1, y_2, ... pass through post-norm
blocks (attention, add & norm, perhaps cross-attention, add & norm, feed-forward, add & norm); head
i at h_t scores each candidate z_j by their scaled product plus the prior, plus, where the model has
a pairwise term, sum over the items y_s already placed of g^age e_{y_s} . f_j / 4, age 0 for the
newest. Only the weights are taken from the module under test.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf, log_softmax, softmax

from training.model.gen_reranker import GenReranker

Array = npt.NDArray[np.float64]


class PlainDecoder:
    def __init__(self, model: GenReranker, z_MZ: Any, prior_M: Any, count: int) -> None:
        self.weights = {
            name: value.detach().double().numpy()
            for name, value in model.decoder.state_dict().items()
        }
        self.settings = model.settings
        # Padding does not exist here: the candidates are the ones that are real.
        z = np.asarray(z_MZ, np.float64)[:count]
        width = self.settings.width
        rank = (z.shape[1] - width) // 2
        self.z, self.e, self.f = z[:, :width], z[:, width : width + rank], z[:, width + rank :]
        self.prior = np.asarray(prior_M, np.float64)[:count]

    def logits(
        self, prefix: list[int], head: int, placed: list[int] | None = None, later: int = 0
    ) -> Array:
        """Scores [m] of all candidates by a head (from 1) at h_t, where t = len(prefix).

        ``placed`` are the items that the pairwise term counts (the prefix if left), the newest
        of them ``later`` places before the one just before the head's.
        """
        width = self.settings.width
        h = self._hidden(prefix)[-1]
        query = self._linear("query", h)[(head - 1) * width : head * width]
        scores: Array = self.z @ query / math.sqrt(width) + self.prior
        fading = self.weights["fading"]
        counted = prefix if placed is None else placed
        for age, item in enumerate(reversed(counted), start=later):
            if age >= len(fading):
                break
            for j in range(len(scores)):
                scores[j] += fading[age] * (self.e[item] @ self.f[j]) / 4
        return scores

    def log_prob(self, prefix: list[int], head: int, taken: list[int]) -> Array:
        """Log-probability [m] of each candidate, all of ``taken`` being placed; -inf at those."""
        logits = self.logits(prefix, head, taken)
        logits[taken] = -np.inf
        if len(set(taken)) == len(logits):
            return logits
        return np.asarray(log_softmax(logits))

    def _hidden(self, prefix: list[int]) -> Array:
        w = self.weights
        tokens = [w["bos"] + w["position.weight"][0]]
        for place, item in enumerate(prefix, start=1):
            tokens.append(self._linear("token", self.z[item]) + w["position.weight"][place])
        x = np.stack([self._norm("norm", token) for token in tokens])
        for layer in range(self.settings.decoder_layers):
            name = f"layers.{layer}"
            seen = [self._attend(f"{name}.attention", x[t], x[: t + 1]) for t in range(len(tokens))]
            x = self._norm(f"{name}.attention_norm", x + np.stack(seen))
            if self.settings.cross_attention:
                looked = [self._attend(f"{name}.cross_attention", token, self.z) for token in x]
                x = self._norm(f"{name}.cross_norm", x + np.stack(looked))
            inner = self._linear(f"{name}.feed_forward.up", x)
            inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
            x = self._norm(
                f"{name}.feed_forward_norm", x + self._linear(f"{name}.feed_forward.down", inner)
            )
        return x

    def _attend(self, name: str, query_D: Array, memory_SD: Array) -> Array:
        width, heads = self.settings.width, self.settings.attention_heads
        size = width // heads
        query = self._linear(f"{name}.query", query_D)
        key_value = self._linear(f"{name}.key_value", memory_SD)
        key, value = key_value[:, :width], key_value[:, width:]
        parts = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            weight = softmax(key[:, part] @ query[part] / math.sqrt(size))
            parts.append(weight @ value[:, part])
        return self._linear(f"{name}.out", np.concatenate(parts))

    def _linear(self, name: str, x: Array) -> Array:
        out: Array = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return out

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        out: Array = scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return out

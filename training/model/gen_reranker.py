"""Gen-Reranker (arXiv 2510.25220): encoder, causal decoder, H heads, dynamic matching.

Axes: B batch, M candidates, N list positions, H heads, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.features import FeatureSpec
from training.data.batch import Batch
from training.model.decoder import Decoder
from training.model.encoder import Encoder
from training.model.layers import causal_mask
from training.settings import ModelSettings


class GenReranker(nn.Module):
    """The policy. Training calls the methods below; serving exports encoder and decoder apart."""

    def __init__(self, spec: FeatureSpec, settings: ModelSettings) -> None:
        super().__init__()
        self.spec = spec
        self.settings = settings
        self.encoder = Encoder(spec, settings)
        self.decoder = Decoder(settings)
        #: Pointwise utility of a candidate, read off Z; an auxiliary task of pre-training.
        self.relevance = nn.Linear(settings.width, 1)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """z_BMD and prior_BM of a batch of requests."""
        z, prior = self.encoder(
            batch.item_cat, batch.item_dense, batch.user_cat, batch.user_dense, batch.count
        )
        return z, prior

    def hidden(self, z_BMZ: Tensor, prior_BM: Tensor, lists_BN: Tensor) -> Tensor:
        """h_0 .. h_{N-1} [B, N, D] under teacher forcing: h_t has seen [BOS], y_1 .. y_t.

        ``lists_BN`` holds candidate indices, -1 after the end of shorter lists; what stands at
        and after -1 is meaningless and must be masked by the caller.
        """
        return self._hidden(self.decoder.split(z_BMZ)[0], prior_BM, lists_BN)

    def utility_logits(self, z_BMZ: Tensor) -> Tensor:
        """The pointwise head [B, M]."""
        logits: Tensor = self.relevance(self.decoder.split(z_BMZ)[0])
        return logits.squeeze(-1)

    def _hidden(self, z_BMD: Tensor, prior_BM: Tensor, lists_BN: Tensor) -> Tensor:
        length = lists_BN.size(1)
        place = torch.arange(1, length, device=z_BMD.device)
        chosen = self.decoder.embed(z_BMD, lists_BN[:, :-1], place)
        x = torch.cat([self.decoder.first(z_BMD.size(0)), chosen], dim=1)
        mask = causal_mask(0, length, z_BMD.device)
        h: Tensor
        h, _ = self.decoder(
            x, self.decoder.empty_cache(z_BMD), self.decoder.memory(z_BMD), prior_BM, mask
        )
        return h

    def window_logits(
        self, z_BMZ: Tensor, prior_BM: Tensor, lists_BN: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, N, H, M]: at [b, t, i] those of head i + 1 at h_t, for y_{t+i+1}.

        Twice, for the pairwise term may count the whole list before y_{t+i+1}, as decoding does
        (L_n), or only the prefix y_1 .. y_t, which every permutation of the window shares (L_o).
        Without a pairwise term both are the same.
        """
        z_BMD, e_BMR, f_BMR = self.decoder.split(z_BMZ)
        queries = self.decoder.queries(self._hidden(z_BMD, prior_BM, lists_BN))
        logits = torch.einsum("bthd,bmd->bthm", queries, z_BMD) + prior_BM[:, None, None, :]
        if self.settings.pair_rank == 0:
            return logits, logits
        rows_BNM = self.decoder.influence(e_BMR, f_BMR, lists_BN)
        length = lists_BN.size(1)
        head = torch.arange(self.settings.heads, device=lists_BN.device)
        target = torch.arange(length, device=lists_BN.device).unsqueeze(1) + head
        pair_BNM = self._lags(length, 0) @ rows_BNM
        whole = logits + pair_BNM[:, target.clamp(max=length - 1)]
        apart = [self._lags(length, int(later)) @ rows_BNM for later in head]
        return whole, logits + torch.stack(apart, dim=2)

    def pair_terms(self, e_BMR: Tensor, f_BMR: Tensor, lists_BN: Tensor) -> Tensor:
        """The pairwise term before each position of whole lists [B, N, M] (Decoder.remember)."""
        rows_BNM = self.decoder.influence(e_BMR, f_BMR, lists_BN)
        return self._lags(lists_BN.size(1), 0).to(rows_BNM.dtype) @ rows_BNM

    def _lags(self, length: int, later: int) -> Tensor:
        """At [k, s]: the weight of y_s in the pairwise term ``later`` places after k; s < k."""
        fading = self.decoder.fading
        place = torch.arange(length, device=fading.device)
        age = place.unsqueeze(1) - place - 1
        within = (age >= 0) & (age + later < fading.size(0))
        return fading[(age + later).clamp(0, fading.size(0) - 1)] * within

    def block_logits(
        self, z_BMZ: Tensor, prior_BM: Tensor, lists_BN: Tensor, block: int | None = None
    ) -> Tensor:
        """Logits [B, N, M] of the factorisation that decoding uses.

        y_k comes from head i of h_t with t = floor((k - 1) / H) * H and i = k - t, as OMTP decodes
        it. ``block`` = 1 is the one-at-a-time factorisation by head 1 (Eq. 1).
        """
        block = block or self.settings.heads
        z_BMD, e_BMR, f_BMR = self.decoder.split(z_BMZ)
        queries = self.decoder.queries(self._hidden(z_BMD, prior_BM, lists_BN))
        k = torch.arange(lists_BN.size(1), device=lists_BN.device)
        q_BND = queries[:, (k // block) * block, k % block]
        logits = q_BND @ z_BMD.transpose(1, 2) + prior_BM.unsqueeze(1)
        if self.settings.pair_rank:
            logits = logits + self.pair_terms(e_BMR, f_BMR, lists_BN)
        return logits

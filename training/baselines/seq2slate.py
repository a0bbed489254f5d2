"""Seq2Slate: a pointer network that writes the list one candidate at a time.

Bello et al., "Seq2Slate: Re-ranking and Slate Optimization with RNNs", 2018, on the pointer network
of Vinyals et al., 2015. LSTMs read the candidates in the given order; from then on each of n steps
runs another LSTM over the last chosen candidate and points at the next one.

``Seq2SlateTransformer`` is the same idea with Transformer blocks in the place of LSTMs.

Axes: B batch, M padded candidates, T list so far, D width, L decoder layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.features import MAX_CANDIDATES, FeatureSpec
from training.baselines.candidates import CandidateInput
from training.baselines.nar4rec import PositionLayer
from training.decoding.choice import settle
from training.model.layers import EncoderLayer, causal_mask
from training.settings import ModelSettings


class Seq2Slate(nn.Module):
    """``encoder_layers`` and ``decoder_layers`` stacked LSTMs of ``width`` units each.

    The order of reading tells the given position, so there is no table of positions.
    """

    def __init__(self, spec: FeatureSpec, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.list_size = spec.list_size
        self.decoder_layers = settings.decoder_layers
        self.input = CandidateInput(spec, width, positions=0)
        self.encoder = nn.LSTM(width, width, settings.encoder_layers, batch_first=True)
        # Stacks may differ in depth, and a padded row's own last state is not what LSTM returns.
        self.bridge = nn.Linear(width, 2 * settings.decoder_layers * width)
        self.decoder = nn.LSTM(width, width, settings.decoder_layers, batch_first=True)
        self.begin = nn.Parameter(torch.randn(width) * 0.02)
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.point = nn.Linear(width, 1, bias=False)

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Lists as the package says."""
        x_BMD, blocked_BM = self.input(item_cat, item_dense, user_cat, user_dense, count)
        batch, width = x_BMD.size(0), x_BMD.size(2)
        key_BMD, h_LBD, c_LBD = self.read(x_BMD, count)
        input_B1D = self.begin.expand(batch, 1, width)
        bias_BM = blocked_BM
        items: list[Tensor] = []
        scores: list[Tensor] = []
        while len(items) < self.list_size:
            d_B1D, (h_LBD, c_LBD) = self.decoder(input_B1D, (h_LBD, c_LBD))
            # u_j = v . tanh(W_1 e_j + W_2 d): the pointer's additive attention.
            pointed_BM = self.point(torch.tanh(key_BMD + self.query(d_B1D))).squeeze(-1)
            scores_BM = pointed_BM + bias_BM
            item_B1 = scores_BM.argmax(dim=1, keepdim=True)
            bias_BM = bias_BM.scatter(1, item_B1, -1e9)  # BLOCKED
            items.append(item_B1)
            scores.append(scores_BM)
            input_B1D = x_BMD.gather(1, item_B1.unsqueeze(2).expand(-1, 1, width))
        order_BN, log_prob_BN = settle(torch.stack(scores, dim=1), torch.stack(items, dim=1), None)
        return order_BN.int(), log_prob_BN

    def read(self, x_BMD: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys of the candidates [B, M, D], and states h, c [L, B, D] before the first choice."""
        batch, most, width = x_BMD.size(0), x_BMD.size(1), x_BMD.size(2)
        e_BMD, _last = self.encoder(x_BMD)
        last_B1 = count.view(-1, 1).long().clamp(min=1, max=most) - 1
        last_BD = e_BMD.gather(1, last_B1.unsqueeze(2).expand(-1, 1, width)).squeeze(1)
        state = torch.tanh(self.bridge(last_BD)).view(batch, 2, self.decoder_layers, width)
        h_LBD = state[:, 0].transpose(0, 1).contiguous()
        c_LBD = state[:, 1].transpose(0, 1).contiguous()
        return self.key(e_BMD), h_LBD, c_LBD


class Seq2SlateTransformer(nn.Module):
    """Transformer blocks over the candidates and over the list so far, and the same pointer.

    A textbook decoder: nothing is kept between steps, each runs over the whole list so far and
    projects the candidates anew. With a cache it is Gen-Reranker decoded one item at a time.
    """

    def __init__(
        self, spec: FeatureSpec, settings: ModelSettings, positions: int = MAX_CANDIDATES
    ) -> None:
        super().__init__()
        width = settings.width
        self.width = width
        self.list_size = spec.list_size
        self.input = CandidateInput(spec, width, positions)
        self.candidate_layers = nn.ModuleList(
            EncoderLayer(width, settings.attention_heads, settings.feed_forward, settings.dropout)
            for _ in range(settings.encoder_layers)
        )
        self.begin = nn.Parameter(torch.randn(width) * 0.02)
        self.place = nn.Embedding(spec.list_size, width)
        self.memory = nn.Linear(width, 2 * settings.decoder_layers * width)
        self.list_layers = nn.ModuleList(
            PositionLayer(settings) for _ in range(settings.decoder_layers)
        )
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.point = nn.Linear(width, 1, bias=False)

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Lists as the package says."""
        z_BMD, blocked_BM = self.input(item_cat, item_dense, user_cat, user_dense, count)
        mask = blocked_BM.unsqueeze(1).unsqueeze(1)
        for layer in self.candidate_layers:
            z_BMD = layer(z_BMD, mask)
        key_BMD = self.key(z_BMD)
        inputs_BTD = self.begin.expand(z_BMD.size(0), 1, -1)
        bias_BM = blocked_BM
        items: list[Tensor] = []
        scores: list[Tensor] = []
        while len(items) < self.list_size:
            length = inputs_BTD.size(1)
            h_BTD = inputs_BTD + self.place.weight[:length]
            among = causal_mask(0, length, z_BMD.device)
            memory = self.memory(z_BMD).split(self.width, 2)
            for index, block in enumerate(self.list_layers):
                h_BTD = block(h_BTD, memory[2 * index], memory[2 * index + 1], mask, among)
            pointed_BM = self.point(torch.tanh(key_BMD + self.query(h_BTD[:, -1:]))).squeeze(-1)
            scores_BM = pointed_BM + bias_BM
            item_B1 = scores_BM.argmax(dim=1, keepdim=True)
            bias_BM = bias_BM.scatter(1, item_B1, -1e9)  # BLOCKED
            items.append(item_B1)
            scores.append(scores_BM)
            chosen_B1D = z_BMD.gather(1, item_B1.unsqueeze(2).expand(-1, 1, z_BMD.size(2)))
            inputs_BTD = torch.cat([inputs_BTD, chosen_B1D], dim=1)
        order_BN, log_prob_BN = settle(torch.stack(scores, dim=1), torch.stack(items, dim=1), None)
        return order_BN.int(), log_prob_BN

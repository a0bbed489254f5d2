"""The decode that engines are made of: OMTP's passes over weights rearranged for inference.

It computes what ``omtp.py`` does, from the same parameters, with fewer and larger steps:

* keys and values of Z for all layers come from one product, and so do a token's own query, key
  and value;
* [BOS] is the same in every request: what its first block makes of it is a constant, and a token
  alone needs no attention to itself;
* n and H are fixed when the engine is made, so every pass has its own shapes and constants: causal
  masks, positions, and only as many heads as the list still has room for;
* the newest token alone leaves the last layer, for it is all that the heads read.

Axes: B batch, M candidates, T newest tokens, S tokens so far, H heads, A attention heads, D width.
"""

# No lazy annotations here: TorchScript reads those of buffers.
import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from training.decoding.omtp import OmtpDecode
from training.decoding.rules import Rules
from training.model.decoder import Decoder
from training.model.layers import Attention, DecoderLayer, attend, block_where, causal_mask, is_free


class PassLayer(nn.Module):
    """A decoder block with its own projections in one product."""

    __constants__ = ("cross",)

    qkv_weight: Tensor
    qkv_bias: Tensor

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        own = layer.attention
        self.attention_heads = own.attention_heads
        with torch.no_grad():
            weight = torch.cat([own.query.weight, own.key_value.weight])
            bias = torch.cat([own.query.bias, own.key_value.bias])
        self.register_buffer("qkv_weight", weight)
        self.register_buffer("qkv_bias", bias)
        self.key_value = own.key_value
        self.out = own.out
        self.norm = layer.attention_norm
        self.cross = layer.cross
        cross = layer.cross_attention
        self.cross_query = cross.query if isinstance(cross, Attention) else nn.Identity()
        self.cross_out = cross.out if isinstance(cross, Attention) else nn.Identity()
        self.cross_norm = layer.cross_norm
        self.up = layer.feed_forward.up
        self.down = layer.feed_forward.down
        self.feed_forward_norm = layer.feed_forward_norm

    def alone(self, x_B1D: Tensor) -> tuple[Tensor, Tensor]:
        """A token that sees itself alone: after self-attention, and its keys and values."""
        cache = self.key_value(x_B1D)
        return self.norm(x_B1D + self.out(cache.chunk(2, dim=2)[1])), cache

    def seen(
        self, x_BTD: Tensor, cache_BSD: Tensor, mask: Optional[Tensor], last: bool
    ) -> tuple[Tensor, Tensor]:
        """After self-attention of the new tokens (or of the last of them), and the longer cache."""
        width = x_BTD.size(2)
        qkv = linear(x_BTD, self.qkv_weight, self.qkv_bias)
        cache_BSD = torch.cat([cache_BSD, qkv[:, :, width:]], dim=1)
        query = qkv[:, :, :width]
        if last:
            query, x_BTD = query[:, -1:], x_BTD[:, -1:]
        key, value = cache_BSD.chunk(2, dim=2)
        heard = attend(query, key, value, mask, self.attention_heads)
        return self.norm(x_BTD + self.out(heard)), cache_BSD

    def rest(self, x_BTD: Tensor, memory: list[Tensor], index: int, memory_mask: Tensor) -> Tensor:
        """The block after self-attention; ``memory`` holds each layer's keys and values in turn."""
        if self.cross:
            query = self.cross_query(x_BTD)
            key, value = memory[2 * index], memory[2 * index + 1]
            heard = attend(query, key, value, memory_mask, self.attention_heads)
            x_BTD = self.cross_norm(x_BTD + self.cross_out(heard))
        return self.feed_forward_norm(  # type: ignore[no-any-return]
            x_BTD + self.down(gelu(self.up(x_BTD)))
        )


class UnrolledDecode(OmtpDecode):
    """``OmtpDecode`` for engines; the two are compared by every parity gate."""

    # Constant, so that TorchScript leaves out the branch that is not taken.
    __constants__ = ("cross",)

    memory_weight: Tensor
    memory_bias: Tensor
    start_11D: Tensor
    start_cache: Tensor
    query_weight: Tensor
    query_bias: Tensor
    causal: Tensor

    def __init__(self, decoder: Decoder, list_size: int, block: int | None = None) -> None:
        super().__init__(decoder, list_size, block)
        layers = [PassLayer(layer) for layer in decoder.layers]  # type: ignore[arg-type]
        self.layers = nn.ModuleList(layers)
        self.cross = layers[0].cross
        pairs = [
            layer.cross_attention.key_value  # type: ignore[union-attr]
            for layer in decoder.layers
            if layer.cross
        ]
        scale = math.sqrt(decoder.width)
        with torch.no_grad():
            start, cache = layers[0].alone(decoder.norm(decoder.first(1)))
            made = {
                "start_11D": start,
                "start_cache": cache,
                "query_weight": decoder.query.weight / scale,
                "query_bias": decoder.query.bias / scale,
                "causal": causal_mask(0, list_size + 1, torch.device("cpu")),
            }
            if pairs:
                made["memory_weight"] = torch.cat([pair.weight for pair in pairs])  # type: ignore[union-attr, misc]
                made["memory_bias"] = torch.cat([pair.bias for pair in pairs])  # type: ignore[union-attr, misc]
        for name, tensor in made.items():
            self.register_buffer(name, tensor)

    def lists(
        self,
        z_BMZ: Tensor,
        prior_BM: Tensor,
        temperature_B1: Tensor,
        noise_BNM: Optional[Tensor],
        rules: Optional[Rules],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As of OmtpDecode."""
        z_BMD, e_BMR, f_BMR = self.decoder.split(z_BMZ)
        batch, width = z_BMD.size(0), z_BMD.size(2)
        memory_mask = block_where(torch.zeros_like(prior_BM), ~is_free(prior_BM))
        memory_mask = memory_mask.unsqueeze(1).unsqueeze(1)
        memory: list[Tensor] = []
        if self.cross:
            both = linear(z_BMD, self.memory_weight, self.memory_bias)
            memory = list(torch.split(both, width, dim=2))
        cache: list[Tensor] = []
        bias_BM = prior_BM
        pair_BWM = self.decoder.nothing_chosen(prior_BM)
        items: list[Tensor] = []
        scores: list[Tensor] = []
        passes = 0
        while len(items) < self.list_size:
            first = len(items)
            if first == 0:
                x_BTD = self.start_11D.expand(batch, -1, -1)
                for index, layer in enumerate(self.layers):
                    if index == 0:
                        cache.append(self.start_cache.expand(batch, -1, -1))
                    else:
                        x_BTD, new = layer.alone(x_BTD)  # type: ignore[operator]
                        cache.append(new)
                    x_BTD = layer.rest(x_BTD, memory, index, memory_mask)  # type: ignore[operator]
            else:
                fresh = items[first - self.block :]
                places = torch.arange(first - self.block + 1, first + 1, device=z_BMD.device)
                x_BTD = self.decoder.norm(
                    self.decoder.embed(z_BMD, torch.cat(fresh, dim=1), places)
                )
                for index, layer in enumerate(self.layers):
                    last = index == len(self.layers) - 1
                    mask: Optional[Tensor] = None
                    if self.block > 1 and not last:
                        mask = self.causal[first - self.block + 1 : first + 1, : first + 1]
                    x_BTD, cache[index] = layer.seen(x_BTD, cache[index], mask, last)  # type: ignore[operator]
                    x_BTD = layer.rest(x_BTD, memory, index, memory_mask)  # type: ignore[operator]
            passes += 1
            count = min(self.block, self.list_size - first)
            queries = linear(
                x_BTD, self.query_weight[: count * width], self.query_bias[: count * width]
            )
            logits_BHM = queries.view(batch, count, width) @ z_BMD.transpose(1, 2)
            for head in range(count):
                bias_BM, pair_BWM, rules = self.choose(
                    logits_BHM[:, head],
                    bias_BM,
                    pair_BWM,
                    (e_BMR, f_BMR),
                    temperature_B1,
                    noise_BNM,
                    rules,
                    items,
                    scores,
                )
        return self.settled(items, scores, passes, temperature_B1, noise_BNM is not None)

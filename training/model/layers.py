"""Post-norm Transformer blocks of Gen-Reranker, written so that TorchScript compiles them.

Axes in names: B batch, T queries, S keys, M candidates, D width, A attention heads.
Masks are additive: 0 where a query may look, a large negative number where it may not.
"""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

#: Additive mask value: finite, so that a row without any allowed key stays finite too.
BLOCKED = -1e9


# TorchScript does not see module constants, hence the literals in these two.
def block_where(x: Tensor, where: Tensor) -> Tensor:
    """``x`` with BLOCKED where ``where`` is true."""
    return x.masked_fill(where, -1e9)


def is_free(x: Tensor) -> Tensor:
    """Where an additive mask or a masked logit is not blocked."""
    return x > -5e8


def attend(
    query_BTD: Tensor, key_BSD: Tensor, value_BSD: Tensor, mask: Optional[Tensor], heads: int
) -> Tensor:
    """Multi-head attention [B, T, D] of projections whose heads lie side by side in D."""
    seen = scaled_dot_product_attention(
        heads_of(query_BTD, heads),
        heads_of(key_BSD, heads),
        heads_of(value_BSD, heads),
        attn_mask=mask,
    )
    return seen.transpose(1, 2).flatten(2)


def heads_of(x_BSD: Tensor, heads: int) -> Tensor:
    """[B, S, D] as [B, A, S, D / A]."""
    width = x_BSD.size(2) // heads
    return x_BSD.view(x_BSD.size(0), x_BSD.size(1), heads, width).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention with keys and values projected apart, so that they can be cached."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def project(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each [B, A, S, D / A]."""
        key, value = self.key_value(x_BSD).chunk(2, dim=-1)
        return self.heads_of(key), self.heads_of(value)

    def forward(self, x_BTD: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query = self.heads_of(self.query(x_BTD))
        return self.join(scaled_dot_product_attention(query, key, value, attn_mask=mask))

    def join(self, out: Tensor) -> Tensor:
        """What the heads saw [B, A, T, D / A], projected to [B, T, D]."""
        return self.out(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def heads_of(self, x_BSD: Tensor) -> Tensor:
        """[B, S, D] as [B, A, S, D / A]."""
        return heads_of(x_BSD, self.attention_heads)


class FeedForward(nn.Module):
    def __init__(self, width: int, multiple: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, multiple * width)
        self.down = nn.Linear(multiple * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Bidirectional block: attention, add & norm, feed-forward, add & norm."""

    def __init__(self, width: int, attention_heads: int, multiple: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, attention_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, multiple)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BMD: Tensor, mask: Tensor) -> Tensor:
        key, value = self.attention.project(x_BMD)
        return self.after_attention(x_BMD, self.attention(x_BMD, key, value, mask))

    def after_attention(self, x_BMD: Tensor, seen_BMD: Tensor) -> Tensor:
        """The rest of the block, from what attention saw."""
        x_BMD = self.attention_norm(x_BMD + self.dropout(seen_BMD))
        return self.feed_forward_norm(  # type: ignore[no-any-return]
            x_BMD + self.dropout(self.feed_forward(x_BMD))
        )


class DecoderLayer(nn.Module):
    """Causal block over the list so far, with or without cross-attention to Z."""

    # Constant, so that TorchScript leaves out the branch that is not taken.
    __constants__ = ("cross",)

    def __init__(
        self, width: int, attention_heads: int, multiple: int, dropout: float, cross: bool
    ) -> None:
        super().__init__()
        self.attention = Attention(width, attention_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.cross = cross
        # Built only where used: DDP and the checkpoint then hold no idle parameters.
        self.cross_attention = Attention(width, attention_heads) if cross else nn.Identity()
        self.cross_norm = nn.LayerNorm(width) if cross else nn.Identity()
        self.feed_forward = FeedForward(width, multiple)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_BTD: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor,
    ) -> Tensor:
        """One block.

        Args:
            x_BTD: the T newest tokens.
            key, value: [B, A, S, D / A] of all tokens so far, the newest included.
            mask: [T, S] or [B, 1, T, S], causal.
            memory: keys and values of Z [B, A, M, D / A]; not looked at without cross-attention.
            memory_mask: [B, 1, 1, M].
        """
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, key, value, mask)))
        if self.cross:
            seen = self.cross_attention(x_BTD, memory[0], memory[1], memory_mask)
            x_BTD = self.cross_norm(x_BTD + self.dropout(seen))
        return self.feed_forward_norm(  # type: ignore[no-any-return]
            x_BTD + self.dropout(self.feed_forward(x_BTD))
        )


def causal_mask(past: int, new: int, device: torch.device) -> Tensor:
    """[new, past + new]: a token sees every older token and itself."""
    blocked = torch.full([new, past + new], -1e9, device=device)
    return torch.triu(blocked, diagonal=past + 1)

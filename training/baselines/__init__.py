"""Rerankers that Gen-Reranker is compared with: their networks.

Each takes the five tensors of the encoder engine (docs/architecture.md) and gives

    order int32 [B, n]: candidate indices, -1 once all are shown,
    score float32 [B, n]: of each choice, natural log of a probability; 0 where the order is -1.

Width, heads and depths are those of ``ModelSettings``, and the blocks are Gen-Reranker's own, so
that a difference in time or quality is one of method. TorchScript compiles each.
"""

"""Temperature scaling (Guo et al., arXiv 1706.04599) of a trained policy, in its weights."""

from __future__ import annotations

import torch

from training.model.gen_reranker import GenReranker


@torch.no_grad()
def soften(model: GenReranker, by: float) -> None:
    """Divide every logit by ``by``, in place: greedy lists stay, their sureness does not.

    What serves needs to know nothing of it.
    """
    query, fading = model.decoder.query, model.decoder.fading
    for factor in (query.weight, query.bias, fading, model.encoder.position_prior):
        factor.div_(by)

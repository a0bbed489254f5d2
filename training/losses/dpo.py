"""Rerank-DPO (Eq. 8) with the cures for likelihood displacement that are known.

Axes: B pairs, N list positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from training.settings import PostTrainSettings


@dataclass(frozen=True)
class PairLogProbs:
    """log p of each position [B, N] (0 at padding) of chosen and rejected lists."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor


def rerank_dpo_loss(
    log_probs: PairLogProbs,
    chosen_length: Tensor,
    rejected_length: Tensor,
    weight: Tensor,
    settings: PostTrainSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 8 over a batch of pairs.

    Args:
        chosen_length, rejected_length: int [B], items in each list.
        weight: float [B], 0 where there is no pair.
        settings: beta, length handling, label smoothing and the likelihood term.

    Returns:
        The loss, and what the field logs: rewards/chosen, rewards/rejected, rewards/margins,
        rewards/accuracies, logps/chosen, logps/rejected (nats a list), logps/chosen_fall (nats a
        list below the reference; positive is a fall).
    """
    chosen, rejected = log_probs.policy_chosen.sum(1), log_probs.policy_rejected.sum(1)
    ref_chosen, ref_rejected = (
        log_probs.reference_chosen.sum(1),
        log_probs.reference_rejected.sum(1),
    )
    chosen_n, rejected_n = chosen_length.clamp(min=1), rejected_length.clamp(min=1)
    ratio_chosen, ratio_rejected = chosen - ref_chosen, rejected - ref_rejected
    if settings.length == "mean":
        ratio_chosen, ratio_rejected = ratio_chosen / chosen_n, ratio_rejected / rejected_n
    reward_chosen, reward_rejected = settings.beta * ratio_chosen, settings.beta * ratio_rejected
    margin = reward_chosen - reward_rejected
    smooth = settings.label_smoothing
    loss = -(1 - smooth) * logsigmoid(margin) - smooth * logsigmoid(-margin)
    if settings.likelihood == "nll":
        loss = loss - settings.likelihood_weight * chosen / chosen_n
    elif settings.likelihood == "dpop":
        fall = (ref_chosen - chosen).clamp(min=0)
        if settings.length == "mean":
            fall = fall / chosen_n
        # Inside the sigmoid, as in DPO-Positive (arXiv 2402.13228, Eq. 3).
        penalised = margin - settings.beta * settings.likelihood_weight * fall
        loss = -(1 - smooth) * logsigmoid(penalised) - smooth * logsigmoid(-penalised)

    def mean(values: Tensor) -> Tensor:
        return (values * weight).sum() / weight.sum().clamp(min=1)

    logs = {
        "rewards/chosen": reward_chosen,
        "rewards/rejected": reward_rejected,
        "rewards/margins": margin,
        "rewards/accuracies": (margin > 0).float(),
        "logps/chosen": chosen,
        "logps/rejected": rejected,
        "logps/chosen_fall": ref_chosen - chosen,
    }
    # The loss divides by the batch size, not by the weight: the mean over equal shards of a
    # distributed batch is then the mean over the whole.
    total = (loss * weight).mean()
    return total, {name: mean(values.detach()) for name, values in logs.items()}


def lengths(lists_BN: Tensor) -> Tensor:
    """Items of each list [B]."""
    return (lists_BN >= 0).sum(1)

"""The failure signatures of Rerank-DPO and OMTP, each named where it is seen."""

from __future__ import annotations

from collections.abc import Mapping

DUPLICATES = "duplicates: decoded lists hold an item twice; the mask of chosen items is broken"


def collapse(limit: float, scores: Mapping[str, float]) -> str:
    """Likelihood displacement: the chosen lists' log-probability fell away from the reference.

    ``limit`` is in nats a list (arXiv 2410.08847 describes the effect). Returns "" or the alarm.
    """
    fall = scores.get("logps/chosen_fall", 0.0)
    if fall <= limit:
        return ""
    mass = scores.get("mass_unshown", 0.0)
    return (
        f"DPO collapse: the chosen lists lost {fall:.1f} nats a list against the reference "
        f"(limit {limit:g}), and {mass:.0%} of the probability lies on candidates that were not "
        "shown; use policy or mirrored pairs, a likelihood term, or a larger beta"
    )


def extrapolation(max_kl: float, max_optimism: float, scores: Mapping[str, float]) -> str:
    """Why post-training has gone far enough (``training/optimism.py`` has the scores), or "".

    Not an alarm: the epochs before are sound. A limit of 0 is none.
    """
    for name, limit, what in (
        ("kl", max_kl, "nats a list from the policy that it began with"),
        ("optimism", max_optimism, "of the gain a list is seen by the labelling evaluators alone"),
    ):
        value = scores.get(f"held_out/{name}", 0.0)
        if 0 < limit < value:
            return f"{name} {value:.3g} {what} (limit {limit:g})"
    return ""


def auc_without_ndcg(given: Mapping[str, float], model: Mapping[str, float]) -> str:
    """Good AUC with poor NDCG: the heads know the items and not their order (L_o too light)."""
    auc = model.get("auc", 0.0) - given.get("auc", 0.0)
    ndcg = model.get("ndcg", 0.0) - given.get("ndcg", 0.0)
    if auc > 0.002 and ndcg < -0.002:
        return (
            f"AUC without NDCG: AUC {auc:+.4f} and NDCG {ndcg:+.4f} against the given order; "
            "raise pretrain.lambda_o"
        )
    return ""


def duplicates(scores: Mapping[str, float]) -> str:
    """Any decoded list with an item twice."""
    return DUPLICATES if scores.get("held_out/duplicates", 0.0) > 0 else ""

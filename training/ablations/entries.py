"""All ablations by name."""

from __future__ import annotations

from training.ablations import network, pairs, policy, stages

ABLATIONS = {
    one.name: one
    for one in (
        stages.STAGES,
        stages.OMTP_LOSS,
        stages.EXPOSURE,
        stages.FACTORISATION,
        stages.BETA,
        pairs.SOURCE,
        policy.LABELS,
        policy.DRAWS,
        pairs.FEEDBACK,
        pairs.ALPHA_GAMMA,
        pairs.DEBIASING,
        network.HEADS,
        network.CROSS_ATTENTION,
        network.PAIRWISE,
        network.SIZE,
        network.DATA,
    )
}

"""The network: heads, cross-attention, depth and width; and how much data it needs."""

from __future__ import annotations

from training.ablations.ablation import Ablation, Arm

HEADS = Ablation(
    name="heads",
    question="How many items a pass, for how many candidates: latency against quality?",
    cases=("fatigue",),
    arms=tuple(
        Arm(
            label=f"H {heads}, {candidates} candidates",
            changes={"model.heads": heads},
            world={} if candidates == 30 else {"candidates": candidates},
        )
        for candidates in (20, 30, 50, 100, 200)
        for heads in (1, 2, 4, 8, 10)
    ),
    reference="H 10, 30 candidates",
    curve="candidates",
)

CROSS_ATTENTION = Ablation(
    name="cross-attention",
    question="Does the decoder need to look at the candidates besides its own prefix?",
    cases=("fatigue", "complements", "kuairand-6"),
    arms=(
        Arm(label="with"),
        Arm(label="without", changes={"model.cross_attention": False}),
    ),
    reference="with",
)

PAIRWISE = Ablation(
    name="pairwise",
    question="What do the pairwise term and the learned prior add to the paper's network?",
    cases=("fatigue", "complements", "strong"),
    arms=(
        Arm(label="both"),
        Arm(label="no pairwise term", changes={"model.pairwise": []}),
        Arm(label="no prior", changes={"model.prior": "none"}),
        Arm(label="neither (the paper)", changes={"model.pairwise": [], "model.prior": "none"}),
    ),
    reference="both",
)

SIZE = Ablation(
    name="size",
    question="How deep and wide must it be?",
    cases=("fatigue", "kuairand-6"),
    arms=tuple(
        Arm(
            label=f"{depth} + {depth} layers, width {width}",
            changes={
                "model.encoder_layers": depth,
                "model.decoder_layers": depth,
                "model.width": width,
            },
        )
        for depth in (1, 2, 4)
        for width in (32, 48, 96)
    ),
    reference="2 + 2 layers, width 48",
)

DATA = Ablation(
    name="data",
    question="How many lists does it need, and does more data still help?",
    cases=("fatigue", "kuairand-6"),
    arms=tuple(
        Arm(label=f"{share:.0%} of the train lists", share=share) for share in (0.1, 0.25, 0.5, 1.0)
    ),
    reference="100% of the train lists",
)

"""Stages and losses: what pre-training and Rerank-DPO each bring (the paper's Table 3)."""

from __future__ import annotations

from training.ablations.ablation import Ablation, Arm
from training.ablations.pairs import PAIRS_ALONE

#: In none of them is the exposure order better than the given one (a column says by how much): that
#: is how production's logs are, and pre-training can at most give the given order back.
_CASES = ("fatigue", "strong", "kuairand-6")

STAGES = Ablation(
    name="stages",
    question="Does pre-training on the exposure order pay, and does Rerank-DPO need it? (Table 3)",
    cases=_CASES,
    arms=(
        Arm(label="both"),
        Arm(label="pre-training only", stages="pre"),
        Arm(label="post-training only", stages="post"),
    ),
    reference="both",
)

OMTP_LOSS = Ablation(
    name="omtp-loss",
    question="What do L_n and L_o bring to pre-training, and with feedback in L_o's S? (Table 3)",
    cases=_CASES,
    arms=(
        Arm(label="one head", stages="pre", changes={"model.heads": 1, "pretrain.lambda_o": 0.0}),
        Arm(label="L_n", stages="pre", changes={"pretrain.lambda_o": 0.0}),
        Arm(
            label="L_n + L_o, S of the exposure",
            stages="pre",
            changes={"pretrain.order_score": "exposure"},
        ),
        Arm(label="L_n + L_o, S of the feedback", stages="pre"),
        Arm(
            label="L_n + 1.0 L_o, S of the feedback",
            stages="pre",
            changes={"pretrain.lambda_o": 1.0},
        ),
    ),
    reference="L_n",
)

EXPOSURE = Ablation(
    name="exposure",
    question="How good must the exposure order be that pre-training learns from?",
    cases=("fatigue",),
    arms=tuple(
        Arm(label=f"{stages}, {what}", stages=stages, world=world)
        for what, world in (
            ("production-like", {}),
            ("close to the given order", {"logging_temperature": 0.05}),
            ("random", {"logging_temperature": 1000.0}),
            ("position-biased", {"position_bias": 1.0}),
        )
        for stages in ("both", "pre", "post")
    ),
    reference="both, production-like",
)

FACTORISATION = Ablation(
    name="factorisation",
    question="Must Rerank-DPO's pi(Y) be the block factorisation that decoding uses?",
    cases=("fatigue", "kuairand-6"),
    arms=(
        Arm(label="block"),
        Arm(label="head 1", changes={"post_train.factorisation": "head_1"}),
    ),
    reference="block",
    scalars=("logps/chosen_fall", "held_out/agreement/head_4"),
)

BETA = Ablation(
    name="beta",
    question="Which beta and likelihood term keep the chosen list's log-probability up?",
    cases=("fatigue", "kuairand-6"),
    arms=tuple(
        Arm(
            label=f"{source} pairs, beta {beta:g}, NLL {weight:g}",
            changes={
                **PAIRS_ALONE,
                "post_train.pairs.source": source,
                "post_train.beta": beta,
                "post_train.likelihood": "nll" if weight else "none",
                "post_train.likelihood_weight": weight,
            },
        )
        for source, betas in (("policy", (0.1, 0.3, 1.0)), ("exposure", (0.1, 1.0)))
        for beta in betas
        for weight in (0.0, 0.1, 0.5)
    ),
    reference="policy pairs, beta 0.1, NLL 0.5",
    scalars=("logps/chosen", "logps/rejected", "logps/chosen_fall", "mass_unshown"),
)

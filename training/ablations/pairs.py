"""Preference pairs: where they come from, and what feedback they are built of."""

from __future__ import annotations

from typing import Any

from training.ablations.ablation import Ablation, Arm

#: Pairs alone: nothing is distilled, and a likelihood term holds the chosen lists up. Four epochs
#: of pairs cost what twelve of distillation do.
PAIRS_ALONE: dict[str, Any] = {
    "post_train.distil": 0.0,
    "post_train.likelihood": "nll",
    "post_train.likelihood_weight": 0.5,
    "post_train.optim.epochs": 4,
}
_SHOWN: dict[str, Any] = {
    **PAIRS_ALONE,
    "post_train.pairs.source": "mirrored",
    "post_train.optim.learning_rate": 1e-3,
}

SOURCE = Ablation(
    name="pairs",
    question="Which pairs teach: the shown list's (Eq. 7), mirrored ones, or the policy's own?",
    cases=("fatigue", "strong", "complements", "kuairand-6"),
    arms=(
        Arm(label="policy", changes={**PAIRS_ALONE, "post_train.pairs.source": "policy"}),
        Arm(
            label="policy, without the evaluator's list",
            changes={
                **PAIRS_ALONE,
                "post_train.pairs.source": "policy",
                "post_train.pairs.searched": False,
            },
        ),
        Arm(label="mirrored", changes=_SHOWN),
        Arm(label="Eq. 7", changes={**_SHOWN, "post_train.pairs.source": "exposure"}),
    ),
    reference="policy",
    scalars=("rewards/accuracies", "logps/chosen_fall", "mass_unshown"),
)

FEEDBACK = Ablation(
    name="feedback",
    question="Binary feedback, watch time, its logarithm, or several kinds weighted?",
    cases=("fatigue",),
    arms=(
        Arm(label="click"),
        Arm(label="watch time", utility="watch_time"),
        Arm(label="log watch time", utility="log_watch_time"),
        Arm(label="click + 2 long view + 4 like", utility="blend"),
    ),
    reference="click",
    metric="true watch_time",
)

ALPHA_GAMMA = Ablation(
    name="alpha-gamma",
    question="How much should feedback (gamma) weigh against position (alpha) in mirrored pairs?",
    cases=("fatigue", "kuairand-6"),
    # The ratio decides; from gamma = alpha on every item with feedback stands before all others.
    arms=tuple(
        Arm(label=f"gamma / alpha {ratio:g}", changes={**_SHOWN, "post_train.pairs.gamma": ratio})
        for ratio in (0.1, 0.25, 0.5, 1.0)
    ),
    reference="gamma / alpha 1",
)

DEBIASING = Ablation(
    name="debiasing",
    question="Does weighing feedback by the inverse of its examination help pairs of shown lists?",
    cases=("position", "fatigue"),
    # At a gamma of a quarter, where it decides more than the order of what was clicked.
    arms=tuple(
        Arm(
            label=f"eta {eta:g}",
            changes={
                **_SHOWN,
                "post_train.pairs.gamma": 0.25,
                "post_train.pairs.examination": eta,
            },
        )
        for eta in (0.0, 0.25, 0.5, 1.0)
    ),
    reference="eta 0",
)

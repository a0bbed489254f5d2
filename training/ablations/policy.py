"""Learning from evaluators: distillation, policy pairs, how lists are drawn, and who labels."""

from __future__ import annotations

from typing import Any

from training.ablations.ablation import Ablation, Arm
from training.ablations.pairs import PAIRS_ALONE

_PAIRS: dict[str, Any] = {**PAIRS_ALONE, "post_train.pairs.draws": 3}

LABELS = Ablation(
    name="labels",
    question="Pairs of lists, distillation position by position, or both; and labelled by whom?",
    cases=("fatigue", "complements"),
    arms=(
        Arm(label="distillation, then both"),
        Arm(label="distillation alone", changes={"post_train.dpo": 0.0}),
        Arm(label="pairs alone", changes=_PAIRS),
        Arm(
            label="both in all of four epochs",
            changes={"post_train.dpo_epochs": 0, "post_train.optim.epochs": 4},
        ),
        Arm(label="greedy search", changes={"post_train.pairs.beam": 1}),
        Arm(label="items and places as fitted", changes={"post_train.pairs.separable": 0.0}),
        Arm(label="items and places wholly apart", changes={"post_train.pairs.separable": 1.0}),
        Arm(label="one labeller", changes={"post_train.pairs.evaluator.labellers": 1}),
        Arm(
            label="labellers of every feedback kind",
            changes={"post_train.pairs.evaluator.other_kinds": 1.0},
        ),
        Arm(
            label="labellers without the judge's users",
            changes={"post_train.pairs.evaluator.apart": True},
        ),
    ),
    reference="distillation, then both",
    scalars=("held_out/kl", "held_out/optimism", "held_out/true_gain (simulated)"),
)

DRAWS = Ablation(
    name="draws",
    question="How should the lists of policy pairs be drawn, compared and mixed?",
    cases=("fatigue", "complements"),
    arms=tuple(
        Arm(label=label, changes={**_PAIRS, **changes})
        for label, changes in (
            ("temperature 1, best against worst", {}),
            ("temperature 2", {"post_train.pairs.temperature": 2.0}),
            ("Gumbel-top", {"post_train.pairs.draw": "gumbel_top"}),
            ("perturbed greedy", {"post_train.pairs.draw": "perturbed"}),
            ("every two", {"post_train.pairs.compare": "all"}),
            (
                "every two, margin 0.1",
                {"post_train.pairs.compare": "all", "post_train.pairs.margin": 0.1},
            ),
            ("fixed pool", {"post_train.pairs.pool": "fixed"}),
            ("a third mirrored pairs", {"post_train.pairs.mix": 0.33}),
        )
    ),
    reference="temperature 1, best against worst",
    scalars=("held_out/kl", "held_out/optimism", "rewards/accuracies", "logps/chosen_fall"),
)

"""Two policies on the same logged slates: every estimate, and whether it may be believed.

Axes: S slates, N list positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.evaluation.alignment import Float64
from training.evaluation.off_policy.estimate import (
    Assumption,
    Estimator,
    OffPolicyEstimate,
    OffPolicySettings,
)
from training.evaluation.off_policy.estimators import (
    Prediction,
    Terms,
    doubly_robust,
    interval_of,
    snips,
)
from training.evaluation.off_policy.logged import Logged
from training.evaluation.off_policy.weights import before, clip_weights, effective_sample_size

ASSUMPTIONS: tuple[Assumption, ...] = ("cascade", "item_position")
ESTIMATORS: tuple[Estimator, ...] = ("snips", "dr")

#: The first position's weights average 1 if the propensities are right; this far off, and by so
#: many standard errors, they are not.
_MEAN_OFF, _MEAN_ERRORS = 0.05, 5.0


@dataclass(frozen=True)
class Weighing:
    """A policy as the estimators see it.

    Attributes:
        name: of the policy.
        weights: [S, N], of weights.py, before any clipping.
        prediction: for DR; None leaves DR out.
    """

    name: str
    weights: Float64
    prediction: Prediction | None = None


@dataclass(frozen=True)
class _Clipped:
    """A weighing's terms by estimator, and what tells whether its weights are sound."""

    name: str
    terms: dict[Estimator, Terms]
    sizes: Float64
    clipped_share: float
    mean_weight: float
    doubts: tuple[str, ...]


def compare_policies(
    logged: Logged,
    assumption: Assumption,
    champion: Weighing,
    candidate: Weighing,
    settings: OffPolicySettings = OffPolicySettings(),
    explored_share: float = 1.0,
    note: str = "",
) -> list[OffPolicyEstimate]:
    """Value of each policy and of candidate - champion, by SNIPS and, with predictions, DR.

    Args:
        assumption: that the weights were made under.
        explored_share: share of all logged slates that these are.
        note: what is said of every estimate, such as which slates were left out.
    """
    both = [_clip(one, logged, settings) for one in (champion, candidate)]
    first, second = both
    out = []
    for estimator in ESTIMATORS:
        if any(estimator not in one.terms for one in both):
            continue
        for policies in ((first,), (second,), (second, first)):
            minus = policies[1].terms[estimator] if len(policies) > 1 else None
            found = interval_of(policies[0].terms[estimator], logged, minus, settings.level)
            doubts = dict.fromkeys(doubt for one in policies for doubt in one.doubts)
            if found is None:
                doubts["some position's weight lies with fewer than two users: no interval"] = None
            sizes = np.min([one.sizes for one in policies], axis=0)
            out.append(
                OffPolicyEstimate(
                    policy=" - ".join(one.name for one in policies),
                    estimator=estimator,
                    assumption=assumption,
                    value=None if found is None else found.estimate,
                    low=None if found is None else found.low,
                    high=None if found is None else found.high,
                    level=settings.level,
                    slates=len(logged),
                    users=len(np.unique(logged.user)),
                    explored_share=explored_share,
                    effective_sample_size=float(np.nanmin(sizes)),
                    effective_sample_sizes=tuple(float(size) for size in np.nan_to_num(sizes)),
                    mean_weight=policies[0].mean_weight if len(policies) == 1 else None,
                    clipped_share=max(one.clipped_share for one in policies),
                    usable=not doubts,
                    why="; ".join([*doubts, *([note] if note else [])]),
                )
            )
    return out


def unusable(
    why: str,
    assumption: Assumption,
    names: tuple[str, str],
    predicted: bool,
    settings: OffPolicySettings,
) -> list[OffPolicyEstimate]:
    """The answer where nothing can be estimated: the same list, without values, and why.

    Args:
        names: champion and candidate.
        predicted: whether there would have been a prediction for DR.
    """
    champion, candidate = names
    return [
        OffPolicyEstimate(
            policy=policy,
            estimator=estimator,
            assumption=assumption,
            level=settings.level,
            usable=False,
            why=why,
        )
        for estimator in (ESTIMATORS if predicted else ESTIMATORS[:1])
        for policy in (champion, candidate, f"{candidate} - {champion}")
    ]


def _clip(one: Weighing, logged: Logged, settings: OffPolicySettings) -> _Clipped:
    shown = logged.shown
    if one.weights.shape != shown.shape:
        raise ValueError(f"weights of {one.name} are {one.weights.shape}; allowed: {shown.shape}")
    if not (np.isfinite(one.weights) & (one.weights >= 0))[shown].all():
        raise ValueError(f"weights of {one.name} must be finite and 0 or more")
    weights, share = clip_weights(one.weights, shown, settings.clip)
    terms: dict[Estimator, Terms] = {"snips": snips(logged, weights)}
    if one.prediction is not None:
        terms["dr"] = doubly_robust(logged, weights, before(weights), one.prediction)
    sizes = effective_sample_size(weights, shown)
    first = one.weights[:, 0]
    error = first.std(ddof=1) / len(first) ** 0.5 if len(first) > 1 else np.inf
    mean, least = float(first.mean()), float(np.nanmin(sizes))
    doubts = []
    if least < settings.min_effective_sample_size:
        doubts.append(
            f"effective sample size of {one.name} is {least:.0f} at position "
            f"{int(np.nanargmin(sizes)) + 1}, below {settings.min_effective_sample_size:g}: the "
            "policy is too far from the logged one for so few explored slates"
        )
    if share > settings.max_clipped_share:
        doubts.append(
            f"{share:.1%} of the weights of {one.name} are above {settings.clip:g} and were cut, "
            f"more than {settings.max_clipped_share:.1%}: the estimate leans to what was logged"
        )
    if abs(mean - 1) > max(_MEAN_OFF, _MEAN_ERRORS * error):
        doubts.append(
            f"weights of {one.name} average {mean:.3f} at the first position where right "
            "propensities give 1: the logged log_prob is not that of the policy that chose"
        )
    return _Clipped(one.name, terms, sizes, share, mean, tuple(doubts))

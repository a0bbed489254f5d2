"""Candidate against champion, from what was logged: the entry for a refresh's gate."""

from __future__ import annotations

from collections.abc import Callable

from training.data.arrays import SlateArrays
from training.evaluation.alignment import Floats
from training.evaluation.off_policy.comparing import ASSUMPTIONS, unusable
from training.evaluation.off_policy.estimate import OffPolicyEstimate, OffPolicySettings
from training.evaluation.off_policy.estimating import CANDIDATE, CHAMPION, estimate_explored
from training.evaluation.off_policy.logged import explored
from training.evaluation.off_policy.policies import ServedPolicy
from training.evaluation.off_policy.q_hat import CrossFit, Predictor
from training.model.gen_reranker import GenReranker
from training.pairs.evaluator import Evaluator


def estimate_candidate(
    champion: GenReranker,
    candidate: GenReranker,
    slates: SlateArrays,
    *,
    q_hat: CrossFit | Evaluator | None = None,
    temperature: float | None = None,
    reward: Floats | None = None,
    settings: OffPolicySettings = OffPolicySettings(),
    progress: Callable[[int], None] = lambda done: None,
) -> list[OffPolicyEstimate]:
    """What candidate and champion would earn a list, and the difference, from logged slates.

    The slates may be of any policy that logged its log-probabilities, the champion or another;
    those that nobody explored are left out (logged.explored). Under the item-position assumption
    only slates count whose log-probabilities the champion reproduces, for that needs the marginals
    of whatever made them.

    Args:
        slates: slates that neither the candidate nor ``q_hat`` was trained on.
        q_hat: what predicts rewards for DR: q_hat.cross_fit of these slates, or an evaluator fitted
            on others. None leaves DR out.
        temperature: at which both policies would serve; 0 is greedily. None: each slate's own, so
            that the champion is measured as it was logged.
        reward: [S, N] aligned with ``slates.exposed``; the utility if left out.
        progress: told of every so many slates done.

    Returns:
        For each assumption and estimator: champion, candidate, and "candidate - champion". A
        decision may rest on those that are ``usable`` alone; the others say why not.

    Raises:
        ValueError: propensities that cannot be (NaN within a list, above 1, 0 for a choice that
            was made), or arrays that do not fit.
    """
    rewards = slates.utility if reward is None else reward
    if rewards.shape != slates.exposed.shape:
        raise ValueError(f"reward is {rewards.shape}; allowed: {slates.exposed.shape}, as exposed")
    found = explored(slates)
    if not found.usable:
        names = CHAMPION, CANDIDATE
        return [
            one
            for assumption in ASSUMPTIONS
            for one in unusable(found.why, assumption, names, q_hat is not None, settings)
        ]
    part = slates.take(found.rows)
    as_logged = ServedPolicy(champion, part.temperature)
    heat = part.temperature if temperature is None else temperature
    return estimate_explored(
        part,
        as_logged if temperature is None else ServedPolicy(champion, heat),
        ServedPolicy(candidate, heat),
        logging=as_logged,
        predictor=_predictor(q_hat, part),
        reward=rewards[found.rows],
        settings=settings,
        explored_share=found.share,
        note=found.why,
        progress=progress,
    )


def _predictor(q_hat: CrossFit | Evaluator | None, slates: SlateArrays) -> Predictor | None:
    if isinstance(q_hat, CrossFit):
        return q_hat.predictor(slates)
    return None if q_hat is None else Predictor((q_hat,))

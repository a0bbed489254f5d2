"""Off-policy estimates in a simulated world, where the truth about any policy is known.

The logging policy and the targets are Plackett-Luce, so every propensity is exact. What is tested
is the promise of an interval: over repeated logs, it covers the truth at its stated rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats

from contracts.features import FeatureSpec
from contracts.slate_columns import to_table
from tests.evaluation.plackett_luce import PlackettLuce
from training.data.arrays import encode_table
from training.evaluation.off_policy.candidate import estimate_candidate
from training.evaluation.off_policy.comparing import Weighing, compare_policies
from training.evaluation.off_policy.estimate import Assumption, OffPolicyEstimate, OffPolicySettings
from training.evaluation.off_policy.estimators import Prediction
from training.evaluation.off_policy.logged import Logged
from training.evaluation.off_policy.policies import ServedPolicy, logged_log_probs
from training.evaluation.off_policy.q_hat import cross_fit
from training.evaluation.off_policy.weights import cascade_weights, item_position_weights
from training.evaluation.truth import true_feedback, world_rows
from training.model.gen_reranker import GenReranker
from training.settings import EvaluatorSettings, ModelSettings, OptimSettings
from training.sources.base import Tally
from training.sources.simulator import Simulator, SimulatorSettings
from training.sources.world import Requests, World, WorldSettings

CANDIDATES, LENGTH, LISTS, LOGS = 6, 3, 800, 200
SETTINGS = OffPolicySettings(clip=None)

Target = Callable[[World, Requests], PlackettLuce]


def world(fatigue: float) -> World:
    """So many users that few come twice; alike candidates, so that fatigue bites."""
    return World(
        WorldSettings(
            items=120,
            categories=4,
            users=20_000,
            candidates=CANDIDATES,
            list_size=LENGTH,
            item_spread=0.3,
            given_noise=1.0,
            logging_temperature=1.5,
            fatigue=fatigue,
        )
    )


def production(made: World, requests: Requests) -> PlackettLuce:
    return PlackettLuce(requests.scores / made.settings.logging_temperature)


def colder(made: World, requests: Requests) -> PlackettLuce:
    """Production at half its temperature."""
    return PlackettLuce(requests.scores / 0.75)


def knowing(made: World, requests: Requests) -> PlackettLuce:
    """Other scores, half way to the truth about each item alone."""
    wanted = made.logits(requests.users, requests.candidates)
    return PlackettLuce((requests.scores + wanted) / 2.5)


def narrow(made: World, requests: Requests) -> PlackettLuce:
    """Production with a liking for one category, that of the first candidate."""
    category = made.category[requests.candidates]
    keys = requests.scores / made.settings.logging_temperature
    return PlackettLuce(keys + 1.0 * (category == category[:, :1]))


def clicks(made: World, requests: Requests, lists: np.ndarray) -> np.ndarray:
    items = np.take_along_axis(requests.candidates, lists, axis=1)
    return made.expected("click", requests.users, items).sum(axis=1)


def truth(made: World, target: Target, count: int = 40_000) -> dict[str, tuple[float, float]]:
    """True clicks a list of each policy, and the standard error of having drawn so few of them.

    Both policies draw with the same noise, so that the difference is known better than either.
    """
    requests = made.draw(count, np.random.default_rng(123))
    champion, candidate = (
        clicks(made, requests, policy(made, requests).draw(LENGTH, np.random.default_rng(1)))
        for policy in (production, target)
    )
    earned = {
        "champion": champion,
        "candidate": candidate,
        "candidate - champion": candidate - champion,
    }
    return {name: (one.mean(), one.std() / count**0.5) for name, one in earned.items()}


def estimates(
    made: World, target: Target, assumption: Assumption, seed: int, lists: int = LISTS
) -> list[OffPolicyEstimate]:
    """From one log of production's."""
    rng = np.random.default_rng([7, seed])
    requests = made.draw(lists, rng)
    shown, log_prob = made.show(requests, rng)
    items = np.take_along_axis(requests.candidates, shown, axis=1)
    click = made.act(requests.users, items, rng)["click"]
    log = Logged(log_prob, click, np.ones(shown.shape, bool), requests.users)
    # A prediction that is off: it knows neither quality nor fatigue, and shrinks.
    guess = 0.7 / (1 + np.exp(-requests.scores))[:, None, :] * made.examination(LENGTH)[:, None]
    weighings = []
    for name, policy in (("champion", production), ("candidate", target)):
        here, logging = policy(made, requests), production(made, requests)
        if assumption == "cascade":
            ahead = here.next_item(shown)
            weights = cascade_weights(here.log_prob(shown), log_prob, log.shown)
        else:
            ahead, base = here.marginals(LENGTH), logging.marginals(LENGTH)
            weights = item_position_weights(_of(ahead, shown), _of(base, shown), log.shown)
        q = Prediction(_of(guess, shown), (ahead * guess).sum(2), assumption == "cascade")
        weighings.append(Weighing(name, weights, q))
    return compare_policies(log, assumption, *weighings, settings=SETTINGS)


def _of(values_SNM: np.ndarray, lists: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values_SNM, lists[:, :, None], axis=2)[:, :, 0]


@dataclass
class Coverage:
    """How often an estimator's intervals held the truth, and its mean error in standard errors."""

    held: float
    error: float


def coverage(
    made: World, target: Target, assumption: Assumption, logs: int = LOGS
) -> dict[tuple[str, str], Coverage]:
    real = truth(made, target)
    found = [one for seed in range(logs) for one in estimates(made, target, assumption, seed)]
    assert all(one.usable for one in found), {one.why for one in found}
    out = {}
    for key in {(one.policy, one.estimator) for one in found}:
        mine = [one for one in found if (one.policy, one.estimator) == key]
        middle, low, high = np.array([(one.value, one.low, one.high) for one in mine]).T
        is_so, error = real[key[0]]
        out[key] = Coverage(
            held=float(((low <= is_so) & (is_so <= high)).mean()),
            error=float((middle.mean() - is_so) / np.hypot(error, middle.std() / logs**0.5)),
        )
    return out


@pytest.mark.parametrize("target", [colder, knowing])
@pytest.mark.parametrize("assumption", ["cascade", "item_position"])
def test_intervals_hold_the_truth_at_their_rate(assumption: Assumption, target: Target) -> None:
    """With fatigue for the cascade, without it for item-position, which knows no other items."""
    made = world(0.8 if assumption == "cascade" else 0.0)
    low, high = stats.binom.ppf((0.0005, 0.9995), LOGS, 0.95) / LOGS
    for key, one in coverage(made, target, assumption).items():
        assert low <= one.held <= high, (key, one)
        assert abs(one.error) < 4, (key, one)


def test_item_position_misses_the_truth_where_items_tire_the_eye() -> None:
    """The known bias: a policy that puts like beside like earns less than its items alone say."""
    made = world(1.0)
    biased = coverage(made, narrow, "item_position", logs=60)["candidate", "snips"]
    right = coverage(made, narrow, "cascade", logs=60)["candidate", "snips"]
    assert biased.error > 6
    assert abs(right.error) < 4


def test_intervals_count_users_not_slates() -> None:
    """Users who are alike in all their slates: slates as clusters of their own are too narrow."""
    rng = np.random.default_rng(0)
    held = {"user": 0, "slate": 0}
    users, each, logs = 60, 8, 200
    for _ in range(logs):
        who = np.repeat(np.arange(users), each)
        mood = rng.normal(0, 1, users)[who]
        log_prob = np.log(np.full((users * each, 1), 0.5))
        second = rng.random(users * each) < 0.5
        reward = (1 + second + mood + rng.normal(0, 0.3, users * each))[:, None]
        # The target takes the second item with 0.8; its value is 1.8.
        weights = np.where(second, 1.6, 0.4)[:, None]
        for name, labels in (("user", who), ("slate", np.arange(users * each))):
            log = Logged(log_prob, reward, np.ones(reward.shape, bool), labels)
            one = compare_policies(log, "cascade", Weighing("a", weights), Weighing("b", weights))[
                0
            ]
            assert one.low is not None
            assert one.high is not None
            held[name] += one.low <= 1.8 <= one.high
    low, high = stats.binom.ppf((0.0005, 0.9995), logs, 0.95) / logs
    assert low <= held["user"] / logs <= high
    assert held["slate"] / logs < 0.75


def test_served_policies_are_estimated_as_the_world_knows_them() -> None:
    """All the way: lists that a Gen-Reranker served, users' clicks, and another's true value."""
    made = world(0.8)
    simulator = Simulator(SimulatorSettings(world=made.settings, lists=3000))
    table = to_table(simulator.slates(Tally()), simulator.spec)
    slates = encode_table(table, simulator.spec)
    champion, candidate = (_model(simulator.spec, seed) for seed in (0, 1))
    users, items = world_rows(made, slates)

    def lists_of(model: GenReranker, seed: int) -> np.ndarray:
        policy = ServedPolicy(model, 0.7)
        drawn = [policy.draw(one, LENGTH, 1, seed)[:, 0].numpy() for one in slates.batches(500)]
        return np.concatenate(drawn)

    exposed = lists_of(champion, 5)
    shown = np.take_along_axis(items, exposed, axis=1)
    feedback = np.zeros_like(slates.feedback)
    feedback[:, :, 0] = made.act(users, shown, np.random.default_rng(0))["click"]
    served = replace(slates, exposed=exposed, feedback=feedback, temperature=np.full(3000, 0.7))
    served = replace(served, log_prob=logged_log_probs(ServedPolicy(champion, 0.7), served))
    quick = EvaluatorSettings(width=8, layers=1, optim=OptimSettings(epochs=2, batch_size=256))
    found = estimate_candidate(
        champion,
        candidate,
        served,
        q_hat=cross_fit(served, quick),
        settings=OffPolicySettings(draws=4, clip=None, batch_size=250),
    )
    real = [
        true_feedback(made, "click", users, items, lists_of(model, 6)).mean()
        for model in (champion, candidate)
    ]
    gain = real[1] - real[0]
    assert abs(gain) > 0.02
    for one in found:
        assert one.usable, one.why
        assert one.value is not None
        assert one.high is not None
        if one.assumption == "cascade" and one.policy == "candidate - champion":
            # Four standard errors: the interval is about two on either side.
            assert abs(one.value - gain) < 2 * (one.high - one.value)


def _model(spec: FeatureSpec, seed: int) -> GenReranker:
    """Untrained, but with a mind of its own beside the given order."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        small = ModelSettings(width=16, encoder_layers=1, decoder_layers=1, attention_heads=2)
        model = GenReranker(spec, small)
        with torch.no_grad():
            model.decoder.query.weight.normal_(std=0.06)
            model.encoder.position_prior *= 0.3 + 0.5 * seed
    return model.eval().requires_grad_(False)

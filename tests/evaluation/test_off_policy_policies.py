"""What a policy would have done, against the decoding that serves it."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

from tests.evaluation.logged_slates import logged_by, slate_arrays
from tests.model.tiny import lively_model
from tests.pairs.evaluators import evaluator
from training.decoding.run import decode_slates
from training.evaluation.off_policy.estimate import OffPolicySettings
from training.evaluation.off_policy.policies import ServedPolicy, logged_log_probs, marginals
from training.evaluation.off_policy.q_hat import Predictor, next_item_values
from training.evaluation.off_policy.views import view_policies

COUNTS = [7, 3, 9, 12, 1, 5]
MODELS = {
    "plain": {},
    "one head": {"heads": 1},
    "three heads, pairs": {"heads": 3, "pairwise": ("colour",)},
    "no prior": {"prior": "none", "cross_attention": False},
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_served_log_prob_is_reproduced(model: dict, temperature: float) -> None:
    """Lists longer than a pass, lists that run out of candidates, padding: as decoding says."""
    policy = lively_model(**model)
    slates = logged_by(policy, COUNTS, 6, temperature)
    assert (slates.exposed < 0).any()
    found = logged_log_probs(ServedPolicy(policy, temperature), slates, batch_size=2)
    shown = slates.exposed >= 0
    np.testing.assert_allclose(found[shown], slates.log_prob[shown], atol=2e-5)
    assert (found[~shown] == 0).all()
    other = logged_log_probs(ServedPolicy(policy, 1.5 * temperature), slates)
    assert np.abs(other - found)[shown].max() > 0.05


def test_each_slate_may_have_its_own_temperature() -> None:
    policy = lively_model()
    slates = logged_by(policy, COUNTS, 4, 1.0)
    heat = np.array([0.5, 1, 2, 0.1, 1, 3])
    found = logged_log_probs(ServedPolicy(policy, heat), slates, batch_size=4)
    for row, one in enumerate(heat):
        alone = logged_log_probs(ServedPolicy(policy, one), slates.take(np.array([row])))
        np.testing.assert_allclose(found[row], alone[0], atol=2e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_next_items_are_a_distribution_over_what_is_left(temperature: float) -> None:
    policy, slates = lively_model(), slate_arrays(COUNTS)
    batch = slates.batch(np.arange(len(slates)))
    log_p = ServedPolicy(policy, temperature).next_item(batch, batch.exposed.unsqueeze(1))[:, 0]
    p = log_p.exp().numpy()
    for row, m in enumerate(COUNTS):
        for place in range(m):
            taken = slates.exposed[row, :place]
            assert p[row, place].sum() == pytest.approx(1, abs=1e-5)
            assert (p[row, place, taken] == 0).all()
            assert (p[row, place, m:] == 0).all()


def test_a_greedy_policy_does_one_thing_alone() -> None:
    policy, slates = lively_model(), slate_arrays(COUNTS)
    best = decode_slates(policy, slates, 5)
    greedy = ServedPolicy(policy, 0.0)
    own = slate_arrays(COUNTS, exposed=best, feedback=np.zeros((*best.shape, 2), np.float32))
    assert (logged_log_probs(greedy, own) == 0).all()
    drawn = greedy.draw(slates.batch(np.arange(len(slates))), 5, 3, 0)
    np.testing.assert_array_equal(drawn.numpy(), np.repeat(best[:, None], 3, axis=1))
    # Another list has a choice that the greedy policy never makes.
    swapped = best[:1, [1, 0, 2, 3, 4]]
    other = slate_arrays(COUNTS).take(np.array([0]))
    batch = other.batch(np.array([0]))
    log_p = greedy.next_item(batch, torch.from_numpy(swapped).unsqueeze(1))[0, 0]
    assert log_p[0, swapped[0, 0]] == -torch.inf


def test_draws_depend_on_slate_and_seed_alone() -> None:
    policy, slates = lively_model(), slate_arrays(COUNTS)
    served = ServedPolicy(policy, np.full(len(COUNTS), 1.0))
    whole = served.draw(slates.batch(np.arange(6)), 3, 4, seed=1)
    part = served.draw(slates.batch(np.array([2, 3])), 3, 4, seed=1)
    assert torch.equal(whole[2:4], part)
    assert not torch.equal(whole, served.draw(slates.batch(np.arange(6)), 3, 4, seed=2))
    assert len({tuple(one) for one in whole[3].tolist()}) > 1


def test_marginals_against_all_lists() -> None:
    """Position 1 is exact with a single draw; the others approach the sum over all 60 lists."""
    policy, slates = lively_model(), slate_arrays([5])
    batch = slates.batch(np.array([0]))
    served = ServedPolicy(policy, 1.0)
    orders = torch.tensor(list(itertools.permutations(range(5), 3)))
    every = served.next_item(batch, orders.unsqueeze(0))
    chosen = every.gather(3, orders[None, :, :, None]).squeeze(3)[0]
    likely = chosen.sum(1).exp().double()
    assert float(likely.sum()) == pytest.approx(1, abs=1e-5)
    exact = np.zeros((3, 5))
    for order, p in zip(orders.tolist(), likely.tolist()):
        for place, item in enumerate(order):
            exact[place, item] += p

    one = served.draw(batch, 3, 1, seed=5)
    np.testing.assert_allclose(
        marginals(served.next_item(batch, one), one)[0, 0], exact[0], atol=1e-5
    )
    draws = torch.cat([served.draw(batch, 3, 63, seed=seed) for seed in range(20)], dim=1)
    found = marginals(served.next_item(batch, draws), draws)[0].numpy()
    np.testing.assert_allclose(found[0], exact[0], atol=1e-5)
    np.testing.assert_allclose(found, exact, atol=0.02)
    # What was drawn, merely counted, says the same with more noise.
    counted = np.stack([np.bincount(draws[0, :, k].numpy(), minlength=5) for k in range(3)])
    np.testing.assert_allclose(counted / draws.size(1), exact, atol=0.06)


def test_views_are_what_slow_sums_give() -> None:
    """Of two policies at slates of several lengths: choices, marginals, expected predictions."""
    champion, candidate = lively_model(), lively_model(seed=1)
    slates = logged_by(champion, [4, 3, 2], 3, 1.0)
    policies = {"champion": ServedPolicy(champion, 1.0), "candidate": ServedPolicy(candidate, 0.5)}
    settings = OffPolicySettings(draws=63, batch_size=2)
    predictor = Predictor((evaluator(),))
    views = view_policies(slates, policies, policies["champion"], predictor, settings)
    assert views.predicted is not None
    batch = slates.batch(np.arange(3))
    given = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, -1]])
    q_next = next_item_values(evaluator(), batch, batch.exposed)
    q_item = next_item_values(evaluator(), batch, given)
    np.testing.assert_array_equal(views.policies["champion"].marginal, views.logging_marginal)
    for name, policy in policies.items():
        view = views.policies[name]
        for row, m in enumerate([4, 3, 2]):
            length = min(3, m)
            orders = torch.tensor(list(itertools.permutations(range(m), length)))
            padded = torch.nn.functional.pad(orders, (0, 3 - length), value=-1)
            one = slates.batch(np.array([row]))
            lists = padded[:, : one.exposed.size(1)]
            log_p = policy.next_item(one, lists.unsqueeze(0))[0]
            chosen = log_p[:, :length].gather(2, orders.unsqueeze(2)).squeeze(2)
            likely = chosen.sum(1).exp()
            for place in range(length):
                item = int(slates.exposed[row, place])
                prefix = slates.exposed[row, :place].tolist()
                at = [k for k, order in enumerate(orders.tolist()) if order[:place] == prefix]
                ahead = log_p[at[0], place, :m].exp()
                assert view.log_prob[row, place] == pytest.approx(
                    float(ahead[item].log()), abs=1e-4
                )
                expected = float((ahead * q_next[row, place, :m]).sum())
                assert view.expected_next[row, place] == pytest.approx(expected, abs=1e-4)
                p_at = torch.stack([likely[orders[:, place] == a].sum() for a in range(m)])
                assert view.marginal[row, place] == pytest.approx(float(p_at[item]), abs=0.08)
                expected = float((p_at * q_item[row, place, :m]).sum())
                assert view.expected_item[row, place] == pytest.approx(expected, abs=0.05)
                q = float(q_next[row, place, item]), float(q_item[row, place, item])
                assert views.predicted.next_item[row, place] == pytest.approx(q[0], abs=1e-5)
                assert views.predicted.item[row, place] == pytest.approx(q[1], abs=1e-5)
            assert (view.log_prob[row, length:] == 0).all()
            assert (view.marginal[row, length:] == 0).all()


def test_next_item_values_are_what_the_evaluator_says_of_lists() -> None:
    made, slates = evaluator(), slate_arrays(COUNTS)
    batch = slates.batch(np.arange(len(slates)))
    found = next_item_values(made, batch, batch.exposed)
    plain = made(made.items(batch), batch.item_cat, batch.exposed).sigmoid()
    chosen = found.gather(2, batch.exposed.clamp(min=0).unsqueeze(2)).squeeze(2)
    shown = batch.exposed >= 0
    torch.testing.assert_close(chosen[shown], plain[shown], atol=1e-5, rtol=1e-4)
    # Rivals of the logged item: the list with one of them in its place.
    other = batch.exposed.clone()
    other[3, 2] = other[3, 5]
    again = made(made.items(batch), batch.item_cat, other).sigmoid()
    assert float(found[3, 2, other[3, 2]]) == pytest.approx(float(again[3, 2]), abs=1e-5)


def test_two_evaluators_each_answer_for_their_slates() -> None:
    first = evaluator()
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.place.weight += 1.0
    slates = slate_arrays(COUNTS)
    which = np.array([True, False, False, True, False, True])
    batch = slates.batch(np.array([3, 1, 0]))
    found = Predictor((first, second), which).next_items(batch, batch.exposed)
    for row, one in enumerate((second, first, second)):
        expected = next_item_values(one, batch, batch.exposed)[row]
        torch.testing.assert_close(found[row], expected)
    with pytest.raises(ValueError, match="2 evaluators; allowed: one, or two"):
        Predictor((first, second))


def test_bad_temperatures_are_refused() -> None:
    for bad in (-1.0, np.nan, np.array([1.0, np.inf])):
        with pytest.raises(ValueError, match="temperature must be 0 or more"):
            ServedPolicy(lively_model(), bad)

"""Candidate against champion on served slates: what a gate gets, and when it gets a refusal."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from contracts.slate_columns import to_table
from tests.contracts import examples
from tests.evaluation.logged_slates import logged_by, slate_arrays
from tests.model.tiny import lively_model
from tests.pairs.evaluators import evaluator
from tests.training.test_slate_arrays import slate
from training.data.arrays import SlateArrays, encode_table
from training.evaluation.off_policy.candidate import estimate_candidate
from training.evaluation.off_policy.estimate import OffPolicyEstimate, OffPolicySettings
from training.evaluation.off_policy.logged import explored
from training.evaluation.off_policy.q_hat import cross_fit
from training.settings import EvaluatorSettings, OptimSettings

CHAMPION, CANDIDATE = lively_model(), lively_model(seed=1)
LENIENT = OffPolicySettings(min_effective_sample_size=1, max_clipped_share=1.0, draws=3)
COUNTS = [int(m) for m in np.random.default_rng(0).integers(3, 9, 150)]


@pytest.fixture(scope="module")
def slates() -> SlateArrays:
    return logged_by(CHAMPION, COUNTS, 4, 1.0)


def table_of(estimates: list[OffPolicyEstimate]) -> dict[tuple[str, str, str], OffPolicyEstimate]:
    return {(one.assumption, one.estimator, one.policy): one for one in estimates}


def test_the_champion_earns_what_was_logged_and_the_difference_is_paired(
    slates: SlateArrays,
) -> None:
    found = estimate_candidate(CHAMPION, CANDIDATE, slates, q_hat=evaluator(), settings=LENIENT)
    table = table_of(found)
    assert len(table) == len(found) == 12
    mean = slates.utility.sum(axis=1).mean()
    for assumption in ("cascade", "item_position"):
        champion = table[assumption, "snips", "champion"]
        assert champion.value == pytest.approx(mean, rel=1e-4)
        assert champion.mean_weight == pytest.approx(1, abs=1e-4)
        assert champion.usable
        assert champion.slates == 150
        assert champion.effective_sample_sizes[0] == pytest.approx(150, rel=1e-4)
        for estimator in ("snips", "dr"):
            one = table[assumption, estimator, "candidate"]
            gap = table[assumption, estimator, "candidate - champion"]
            own = table[assumption, estimator, "champion"]
            assert one.value is not None
            assert own.value is not None
            assert gap.value == pytest.approx(one.value - own.value)
            assert gap.low is not None
            assert gap.high is not None
            assert gap.low < gap.value < gap.high
            assert one.effective_sample_size < 100
            assert msgspec.json.decode(msgspec.json.encode(one), type=OffPolicyEstimate) == one


def test_a_policy_against_itself_differs_by_nothing(slates: SlateArrays) -> None:
    for one in estimate_candidate(CHAMPION, CHAMPION, slates, settings=LENIENT):
        if one.assumption == "cascade" and one.policy == "candidate - champion":
            assert (one.value, one.low, one.high) == (0, 0, 0)


def test_the_same_whatever_the_batches(slates: SlateArrays) -> None:
    for size in (7, 150):
        settings = msgspec.structs.replace(LENIENT, batch_size=size)
        found = estimate_candidate(
            CHAMPION, CANDIDATE, slates, q_hat=evaluator(), settings=settings
        )
        values = [one.value for one in found]
        if size == 7:
            first = values
    assert values == pytest.approx(first, rel=1e-4)


def test_slates_of_another_policy_need_no_more_than_their_log_prob(slates: SlateArrays) -> None:
    """The item-position model does: it needs the marginals of whoever chose."""
    table = table_of(estimate_candidate(CANDIDATE, CHAMPION, slates, settings=LENIENT))
    assert table["cascade", "snips", "candidate"].value == pytest.approx(
        slates.utility.sum(axis=1).mean(), rel=1e-4
    )
    refused = table["item_position", "snips", "candidate - champion"]
    assert not refused.usable
    assert refused.value is None
    assert "not that of the policy taken for the logging one" in refused.why


def test_item_position_uses_what_the_champion_has_made(slates: SlateArrays) -> None:
    other = logged_by(CANDIDATE, COUNTS[:50], 4, 1.0, seed=3)
    mixed = _joined(slates, other)
    table = table_of(estimate_candidate(CHAMPION, CANDIDATE, mixed, settings=LENIENT))
    assert table["cascade", "snips", "champion"].slates == 200
    one = table["item_position", "snips", "champion"]
    assert one.slates == 150
    assert one.explored_share == pytest.approx(0.75)
    assert "50 of 200 explored slates have another policy's log_prob" in one.why


def test_a_mixture_uses_the_explored_slates_and_says_so(slates: SlateArrays) -> None:
    heat, fallback = slates.temperature.copy(), slates.fallback.copy()
    log_prob, exposed = slates.log_prob.copy(), slates.exposed.copy()
    heat[:60] = 0
    fallback[50:70] = "deadline"
    log_prob[70:80] = np.nan
    exposed[80:82] = -1
    mixed = replace(slates, temperature=heat, fallback=fallback, log_prob=log_prob, exposed=exposed)
    found = explored(mixed)
    np.testing.assert_array_equal(found.rows, np.arange(82, 150))
    assert found.usable
    table = table_of(estimate_candidate(CHAMPION, CANDIDATE, mixed, settings=LENIENT))
    alone = table_of(
        estimate_candidate(CHAMPION, CANDIDATE, slates.take(np.arange(82, 150)), settings=LENIENT)
    )
    key = "cascade", "snips", "candidate"
    assert table[key].value == pytest.approx(alone[key].value)
    assert table[key].explored_share == pytest.approx(68 / 150)
    assert alone[key].explored_share == 1
    assert alone[key].why == ""
    for words in (
        "50 of 150 slates were logged greedily",
        "20 of 150 slates were fallbacks",
        "10 of 150 slates have no log_prob",
        "2 of 150 slates showed nothing",
    ):
        assert words in table[key].why


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": np.zeros(150)}, "150 of 150 slates were logged greedily"),
        ({"log_prob": np.full((150, 4), np.nan)}, "150 of 150 slates have no log_prob"),
        ({"fallback": np.full(150, "unavailable", object)}, "150 of 150 slates were fallbacks"),
        ({"log_prob": np.zeros((150, 4))}, "every logged choice had probability 1"),
    ],
)
def test_greedy_data_cannot_be_used_and_it_says_why(
    slates: SlateArrays, changes: dict, words: str
) -> None:
    dull = replace(slates, **changes)
    found = estimate_candidate(CHAMPION, CANDIDATE, dull, q_hat=evaluator())
    assert len(found) == 12
    for one in found:
        assert not one.usable
        assert one.value is None
        assert words in one.why
        assert "never tried anything else" in one.why
        assert "temperature above 0" in one.why


def test_too_small_an_effective_sample_is_no_ground_to_decide_on(slates: SlateArrays) -> None:
    found = estimate_candidate(CHAMPION, CANDIDATE, slates)
    table = table_of(found)
    one = table["cascade", "snips", "candidate - champion"]
    assert not one.usable
    assert one.value is not None
    assert "effective sample size of candidate is" in one.why
    assert table["cascade", "snips", "champion"].usable


def test_clipped_weights_are_counted_and_too_many_refused(slates: SlateArrays) -> None:
    settings = msgspec.structs.replace(LENIENT, clip=1.5, max_clipped_share=0.01)
    table = table_of(estimate_candidate(CHAMPION, CANDIDATE, slates, settings=settings))
    one = table["cascade", "snips", "candidate"]
    assert one.clipped_share > 0.05
    assert not one.usable
    assert "are above 1.5 and were cut" in one.why


def test_wrong_propensities_show_in_the_mean_weight() -> None:
    """Log-probabilities of another temperature than the one that was served."""
    many = [int(m) for m in np.random.default_rng(1).integers(5, 9, 1200)]
    slates = logged_by(CHAMPION, many, 3, 1.0)
    wrong = replace(slates, log_prob=0.4 * slates.log_prob)
    settings = msgspec.structs.replace(LENIENT, draws=0)
    one = estimate_candidate(CHAMPION, CHAMPION, wrong, settings=settings)[0]
    assert not one.usable
    assert "where right propensities give 1" in one.why
    assert estimate_candidate(CHAMPION, CHAMPION, slates, settings=settings)[0].usable


def test_propensities_above_one_or_missing_within_a_list_are_errors(slates: SlateArrays) -> None:
    for bad, words in ((0.5, "a probability of 1.649"), (np.nan, "is nan")):
        log_prob = slates.log_prob.copy()
        log_prob[3, 1] = bad
        with pytest.raises(ValueError, match=words):
            estimate_candidate(CHAMPION, CANDIDATE, replace(slates, log_prob=log_prob))
    with pytest.raises(ValueError, match="reward is"):
        estimate_candidate(CHAMPION, CANDIDATE, slates, reward=np.zeros((150, 2)))


def test_a_greedy_target_is_judged_by_the_lists_that_happen_to_be_its_own(
    slates: SlateArrays,
) -> None:
    settings = msgspec.structs.replace(LENIENT, clip=None, draws=1)
    found = estimate_candidate(CHAMPION, CHAMPION, slates, temperature=0.0, settings=settings)
    one = table_of(found)["cascade", "snips", "candidate"]
    assert 0 < one.effective_sample_size < 100
    assert one.mean_weight is not None


def test_no_draws_no_item_position(slates: SlateArrays) -> None:
    settings = msgspec.structs.replace(LENIENT, draws=0)
    table = table_of(estimate_candidate(CHAMPION, CANDIDATE, slates, settings=settings))
    assert table["cascade", "snips", "candidate"].usable
    assert "draws is 0" in table["item_position", "snips", "candidate"].why


def test_cross_fitting_keeps_a_users_rewards_from_their_own_predictions() -> None:
    slates = logged_by(CHAMPION, COUNTS, 4, 1.0, seed=5)
    quick = EvaluatorSettings(
        width=8, layers=1, attention_heads=2, optim=OptimSettings(epochs=1, batch_size=32)
    )
    whose = slates.user[0]
    flipped = slates.feedback.copy()
    flipped[slates.user == whose] = 1 - flipped[slates.user == whose]
    other = replace(slates, feedback=flipped)
    batch = slates.batch(np.arange(len(slates)))
    values = []
    for one in (slates, other):
        fitted = cross_fit(one, quick, seed=0, progress=lambda text: None)
        values.append(fitted.predictor(one).next_items(batch, batch.exposed).numpy())
    mine = slates.user == whose
    np.testing.assert_array_equal(values[0][mine], values[1][mine])
    assert np.abs(values[0] - values[1]).max() > 1e-6
    found = estimate_candidate(CHAMPION, CANDIDATE, slates, q_hat=fitted, settings=LENIENT)
    assert {one.estimator for one in found} == {"snips", "dr"}
    with pytest.raises(ValueError, match="users are too few"):
        cross_fit(slates.take(np.flatnonzero(mine)), quick)


def test_tables_bring_propensities_along() -> None:
    spec = examples.spec()
    rows = [
        slate(0, log_prob=(-0.5, -1.5), temperature=0.7),
        slate(1, exposed=(2,), fallback="deadline"),
        slate(2, 4, (3, 0, 1), log_prob=(-0.1, -0.2, -0.3)),
    ]
    arrays = encode_table(to_table(rows, spec), spec)
    nan = np.nan
    expected = [[-0.5, -1.5, nan], [nan, nan, nan], [-0.1, -0.2, -0.3]]
    np.testing.assert_array_equal(arrays.log_prob, expected)
    assert arrays.temperature.tolist() == [0.7, 0.0, 0.0]
    assert arrays.fallback.tolist() == ["", "deadline", ""]
    table = to_table(rows, spec)
    for name in ("temperature", "fallback", "log_prob"):
        index = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(index, field, pa.nulls(3, field.type))
    bare = encode_table(table, spec)
    assert np.isnan(bare.log_prob).all()
    assert (bare.temperature == 0).all()
    assert (bare.fallback == "").all()
    assert "3 of 3 slates have no log_prob" in explored(bare).why


def _joined(first: SlateArrays, second: SlateArrays) -> SlateArrays:
    counts = [*COUNTS, *COUNTS[:50]]
    names = ("item_cat", "item_dense", "user_cat", "user_dense", "count", "exposed", "feedback")
    names += ("log_prob", "temperature", "user", "fallback")
    width = max(counts)

    def padded(values: np.ndarray, fit: bool) -> np.ndarray:
        if not fit or values.shape[1] == width:
            return values
        size = [(0, 0), (0, width - values.shape[1]), (0, 0)]
        return np.pad(values, size)

    return slate_arrays(
        counts,
        **{
            name: np.concatenate(
                [
                    padded(getattr(one, name), name in ("item_cat", "item_dense"))
                    for one in (first, second)
                ]
            )
            for name in names
        },
    )

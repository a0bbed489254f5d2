"""The two evaluators: what they may learn by heart, and when they begin anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch

from contracts.features import OUT_OF_VOCABULARY
from tests.model.tiny import SPEC, random_batch
from tests.pairs.test_fit_evaluator import made
from training.data.arrays import SlateArrays
from training.pairs import two_evaluators
from training.pairs.evaluator import Evaluator
from training.pairs.two_evaluators import Weights, fit_two
from training.settings import EvaluatorSettings, OptimSettings

CPU = torch.device("cpu")
TINY = EvaluatorSettings(
    width=16,
    layers=1,
    attention_heads=2,
    dropout=0.0,
    optim=OptimSettings(epochs=6, batch_size=32, learning_rate=1e-2, patience=2),
    again=OptimSettings(epochs=1, batch_size=32, learning_rate=1e-4, patience=1),
)


def test_identities_are_hidden_while_fitting_and_never_after() -> None:
    hiding = Evaluator(SPEC, msgspec.structs.replace(TINY, id_dropout=1.0))
    batch = random_batch([6, 8, 5], [3, 4, 2], seed=2)
    known = batch.item_cat.clone(), batch.user_cat.clone()
    strangers = copied(batch)
    strangers.item_cat[..., 0] = OUT_OF_VOCABULARY
    strangers.user_cat[..., 0] = OUT_OF_VOCABULARY

    hiding.train()
    torch.testing.assert_close(hiding.items(batch), hiding.items(strangers))
    hiding.eval()
    assert not torch.allclose(hiding.items(batch), hiding.items(strangers))
    torch.testing.assert_close(batch.item_cat, known[0])
    torch.testing.assert_close(batch.user_cat, known[1])
    # Other features stay: an item of another colour is another item.
    other = copied(batch)
    other.item_cat[..., 1] = 2 + (other.item_cat[..., 1] - 1) % 3
    hiding.train()
    assert not torch.allclose(hiding.items(batch), hiding.items(other))


def copied(batch):  # type: ignore[no-untyped-def]
    return replace(batch, item_cat=batch.item_cat.clone(), user_cat=batch.user_cat.clone())


def test_half_hidden_is_about_half() -> None:
    one = Evaluator(SPEC, msgspec.structs.replace(TINY, id_dropout=0.5)).train()
    torch.manual_seed(0)
    hidden = one._hidden(torch.full((4000, 2), 7), 0)
    assert (hidden[:, 1] == 7).all()
    share = float((hidden[:, 0] == OUT_OF_VOCABULARY).float().mean())
    assert abs(share - 0.5) < 0.04
    assert ((hidden[:, 0] == 7) | (hidden[:, 0] == OUT_OF_VOCABULARY)).all()


@pytest.mark.parametrize("apart", [True, False])
def test_who_is_fitted_on_whom_and_with_what_seed(
    apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge has its own third of the users; runs of other seeds share no evaluator."""
    fit, seen = two_evaluators.fit_evaluator, []

    def recorded(own: SlateArrays, held_out: SlateArrays, settings: Any, seed: int, *rest: Any,
                 **more: Any) -> Any:  # fmt: skip
        seen.append((seed, frozenset(own.user)))
        return fit(own, held_out, settings, seed, *rest, **more)

    monkeypatch.setattr(two_evaluators, "fit_evaluator", recorded)
    few = msgspec.structs.replace(
        TINY, apart=apart, labellers=3, optim=OptimSettings(epochs=1, batch_size=64)
    )
    slates, held_out = made(200, 1), made(60, 2)
    for seed in (0, 1, 2, 3):
        fit_two(slates, held_out, few, seed, CPU)
    everyone = frozenset(slates.user)
    for run in (seen[first : first + 4] for first in range(0, 16, 4)):
        *labellers, (_, judged) = run
        assert 0 < len(judged) < len(everyone)
        for _, users in labellers:
            assert users == (everyone - judged if apart else everyone)
    assert len({seed for seed, _ in seen}) == 16


@pytest.fixture(scope="module")
def taught() -> Weights:
    """Evaluators to whom red items are clicked."""
    two = fit_two(made(600, 1), made(200, 2), TINY, 0, CPU)
    assert two.accepted
    return two.weights


def test_few_slates_of_the_same_tastes_go_on_from_the_earlier_ones(taught: Weights) -> None:
    few, held_out = made(6, 3), made(300, 4)
    anew, gone_on = (fit_two(few, held_out, TINY, 0, CPU, start) for start in (None, taught))
    for name in ("labeller", "judge"):
        assert getattr(gone_on, name).report.loss < getattr(anew, name).report.loss
    assert gone_on.accepted


def test_where_tastes_have_turned_they_begin_anew(taught: Weights) -> None:
    """The timid steps of ``again`` would not get away from what has become wrong."""
    turned, held_out = turned_round(made(600, 5)), turned_round(made(300, 6))
    anew, gone_on = (fit_two(turned, held_out, TINY, 0, CPU, start) for start in (None, taught))
    for name in ("labeller", "judge"):
        one = getattr(gone_on, name)
        assert one.report == getattr(anew, name).report
        assert one.report.accepted


def turned_round(slates):  # type: ignore[no-untyped-def]
    """The same slates where green items are the ones that are clicked."""
    shown = (slates.exposed >= 0)[:, :, None]
    return replace(slates, feedback=((1 - (slates.feedback > 0)) * shown).astype("float32"))

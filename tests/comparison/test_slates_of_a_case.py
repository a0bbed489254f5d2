"""Other utilities, less to train on, and head 1's factorisation."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from contracts.datasets import read_dataset
from contracts.reading import ContractError
from tests.sources.kuairand_files import log_rows, sequence_rows, write
from training.comparison.cases import CASES, slates_of, whole_of
from training.comparison.gref import Gref, untrained
from training.comparison.running import slates_in, with_feedback_of
from training.comparison.utilities import BLEND
from training.losses.likelihood import list_log_probs
from training.objectives import RerankDpoObjective
from training.pairs.exposure import ExposurePairs
from training.settings import PostTrainSettings, override

SMALL = msgspec.structs.replace(CASES["tiny"], lists=300)


def test_other_utilities_are_of_the_same_lists(tmp_path: Path) -> None:
    base = slates_in(slates_of(SMALL, tmp_path, None)).train
    kinds = [one.kind for one in base.spec.feedback]
    values = {kind: base.feedback[:, :, kinds.index(kind)] for kind in kinds}
    expected = {
        "watch_time": values["watch_time"],
        "log_watch_time": np.log1p(values["watch_time"]),
        "blend": sum(weight * values[kind] for kind, weight in BLEND.items()),
    }
    for utility, wanted in expected.items():
        case = msgspec.structs.replace(SMALL, name=utility, utility=utility)
        made = slates_in(slates_of(case, tmp_path, None)).train
        assert made.request_id.tolist() == base.request_id.tolist()
        assert made.spec.utility == utility
        column = [one.kind for one in made.spec.feedback].index(utility)
        np.testing.assert_allclose(made.feedback[:, :, column], wanted, rtol=1e-5)
        scale = float(np.median(wanted[wanted > 0]))
        np.testing.assert_allclose(made.utility, wanted / (wanted + scale), rtol=1e-4)
        assert case.identity() != SMALL.identity()
    assert math.isclose(float(expected["blend"].max()), 7.0)  # all three kinds at once


def test_a_share_of_train_leaves_the_rest_and_is_nested(tmp_path: Path) -> None:
    found = {}
    for share in (0.3, 0.6, 1.0):
        case = msgspec.structs.replace(SMALL, share=share)
        found[share] = slates_in(slates_of(case, tmp_path, None))
    train = {share: set(one.train.request_id) for share, one in found.items()}
    assert train[0.3] < train[0.6] < train[1.0]
    assert 0.2 < len(train[0.3]) / len(train[1.0]) < 0.4
    for one in found.values():
        assert one.test.request_id.tolist() == found[1.0].test.request_id.tolist()


def test_shuffled_slates_have_another_folder_and_the_same_test(tmp_path: Path) -> None:
    plain, control = (slates_of(SMALL, tmp_path, None, shuffled) for shuffled in (False, True))
    assert read_dataset(control)[0].shuffled_feedback
    assert not read_dataset(plain)[0].shuffled_feedback
    real, shuffled = slates_in(plain), slates_in(control)
    np.testing.assert_array_equal(real.test.feedback, shuffled.test.feedback)
    assert (real.train.feedback != shuffled.train.feedback).any()


def test_systems_are_judged_by_all_feedback_and_trained_on_what_was_shown(tmp_path: Path) -> None:
    write(
        tmp_path / "in", log_rows(days=("2022-04-26", "2022-05-01", "2022-05-03")), sequence_rows()
    )
    case = msgspec.structs.replace(CASES["kuairand-10-to-5"], list_size=6, shown=2)
    whole = whole_of(case)
    assert whole is not None
    made = [slates_of(one, tmp_path, tmp_path / "in") for one in (case, whole)]
    slates, full = slates_in(*made), slates_in(made[1])
    assert slates.train.exposed.shape[1] == slates.valid.exposed.shape[1] == 2
    assert slates.judged.exposed.shape[1] == slates.test.exposed.shape[1] == 6
    assert slates.test.spec.list_size == 2
    np.testing.assert_array_equal(slates.test.feedback, full.test.feedback)
    np.testing.assert_array_equal(slates.valid.exposed, slates.judged.exposed[:, :2])
    np.testing.assert_array_equal(slates.test.item_dense, full.test.item_dense)
    with pytest.raises(ContractError, match="not of the same requests"):
        with_feedback_of(slates.valid, full.test)


@pytest.mark.parametrize("factorisation", ["block", "head_1"])
def test_dpo_uses_the_factorisation_asked_for(tmp_path: Path, factorisation: str) -> None:
    slates = slates_in(slates_of(SMALL, tmp_path, None)).train
    settings = override(PostTrainSettings(), {"factorisation": factorisation})
    model = untrained(slates, Gref.defaults(SMALL)).model.train()
    for value in model.parameters():  # heads that agree would hide the difference
        torch.nn.init.normal_(value, std=0.2)
    batch = slates.batch(np.arange(16))
    source = ExposurePairs(1.0, 1.0, 0.0)
    _, scalars = RerankDpoObjective(model, source, settings, seed=0)(batch, 1)
    pairs = source.pairs(batch, model, torch.zeros(16, dtype=torch.long))
    z, prior = model.encode(batch)
    chosen = {
        name: list_log_probs(model.block_logits(z, prior, pairs.chosen, block), pairs.chosen)
        for name, block in (("block", model.settings.heads), ("head_1", 1))
    }
    weight = pairs.weight / pairs.weight.sum()
    expected = {
        name: float((value.sum(1) * weight).sum().detach()) for name, value in chosen.items()
    }
    assert abs(expected["block"] - expected["head_1"]) > 1e-3
    assert float(scalars["logps/chosen"]) == pytest.approx(expected[factorisation], rel=1e-4)


def test_slates_of_other_files_are_refused(tmp_path: Path) -> None:
    """A folder of the same name may hold another release of the data."""
    days = ("2022-04-26", "2022-05-01", "2022-05-03")
    for name, seed in (("one", 0), ("other", 1)):
        write(tmp_path / name, log_rows(days=days, seed=seed), sequence_rows())
    case = msgspec.structs.replace(CASES["kuairand-6"], list_size=6)
    folder = slates_of(case, tmp_path, tmp_path / "one")
    assert slates_of(case, tmp_path, tmp_path / "one") == folder
    with pytest.raises(ContractError, match="made of other files"):
        slates_of(case, tmp_path, tmp_path / "other")

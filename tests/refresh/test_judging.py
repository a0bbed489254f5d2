"""Divergence of policies against brute force, and evaluators that go on from earlier ones."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from contracts.reading import ContractError
from contracts.slate_columns import to_table
from contracts.slates import Slate
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.data.arrays import SlateArrays, encode_table
from training.evaluation.divergence import mean_divergence
from training.losses.likelihood import list_log_probs
from training.model.gen_reranker import GenReranker
from training.pairs.two_evaluators import fit_two, load_two, save_two
from training.settings import EvaluatorSettings, OptimSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def arrays(slates: list[Slate], champion: Checkpoint) -> SlateArrays:
    return encode_table(to_table(slates, champion.spec).combine_chunks(), champion.spec)


def moved(model: GenReranker) -> GenReranker:
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return model


def test_divergence_is_that_of_all_lists(slates: list[Slate], champion: Checkpoint) -> None:
    """Four candidates, all 24 lists: KL = sum p log(p / q), no draws."""
    spec = msgspec.structs.replace(champion.spec, list_size=4)
    one = slates[0]
    bare = msgspec.structs.replace(
        one, candidates=one.candidates[:4], exposed=(0,), log_prob=None, feedback=()
    )
    arrays = encode_table(to_table([bare] * 4000, spec).combine_chunks(), spec)
    policy, reference = champion.model(), moved(champion.model())
    batch = arrays.batch(np.zeros(24, np.int64))
    lists = torch.tensor(list(itertools.permutations(range(4))))
    with torch.no_grad():
        log_p, log_q = (
            list_log_probs(model.block_logits(*model.encode(batch), lists), lists).sum(1)
            for model in (policy, reference)
        )
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)
    exact = float((log_p.exp() * (log_p - log_q)).sum())
    assert exact > 0.005  # something to measure
    drawn = mean_divergence(policy, reference, arrays, seed=0)
    assert drawn == pytest.approx(exact, rel=0.05)
    assert mean_divergence(policy, champion.model(), arrays, seed=0) == 0


def test_evaluators_go_on_from_earlier_ones(
    arrays: SlateArrays, champion: Checkpoint, tmp_path: Path
) -> None:
    train, valid = arrays.take(np.arange(1000)), arrays.take(np.arange(1000, 1500))
    as_many = EvaluatorSettings(labellers=3)  # as the recipe that made the champion
    still = msgspec.structs.replace(as_many, again=OptimSettings(epochs=0))
    two = fit_two(train, valid, still, 0, CPU, champion.evaluators)
    for name, weights in two.weights.items():
        for key, value in weights.items():
            if ".rates." not in f".{key}":  # what it has counted goes on
                assert torch.equal(value, champion.evaluators[name][key])
    new = fit_two(train, valid, as_many, 0, CPU, champion.evaluators)
    for before, after in ((two.labeller, new.labeller), (two.judge, new.judge)):
        assert after.report.loss <= before.report.loss  # the earlier one is a choice, too
    save_two(tmp_path / "evaluators.pt", new, "this")
    again = load_two(tmp_path / "evaluators.pt", train.spec, as_many, CPU, "this")
    assert again is not None
    assert again.labeller.report == new.labeller.report
    other = load_two(tmp_path / "evaluators.pt", train.spec, as_many, CPU, "other")
    assert other is None
    for size in ({"width": 32}, {"labellers": 1}, {"labellers": 4}):
        other_size = msgspec.structs.replace(as_many, **size)
        with pytest.raises(ContractError, match="of another size"):
            fit_two(train, valid, other_size, 0, CPU, champion.evaluators)


def test_a_checkpoint_carries_its_evaluators(champion: Checkpoint, tmp_path: Path) -> None:
    assert set(champion.evaluators) == {"labeller", "judge"}
    save_checkpoint(tmp_path / "one.pt", champion)
    read = load_checkpoint(tmp_path / "one.pt")
    assert read.evaluators.keys() == champion.evaluators.keys()
    save_checkpoint(tmp_path / "two.pt", replace(champion, evaluators={}))
    assert load_checkpoint(tmp_path / "two.pt").evaluators == {}
    assert math.isfinite(sum(champion.scores.values()))

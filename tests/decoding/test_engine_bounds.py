"""Engines on a GPU meet requests that nobody checked: no index may leave its table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from contracts.features import MAX_CANDIDATES
from handlers.rerank_base import RerankError
from handlers.rerank_wire import _check_row
from tests.model.tiny import SPEC, lively_model, random_batch
from training.engines.onnx_graph import NoiseEngine
from training.engines.parity import no_rules
from training.engines.torchscript import compile_engine, eager_engines

CONSTANT = "prim::Constant"
MODEL = lively_model(4, pairwise=("colour",))
ENCODER, DECODER = (compile_engine(module) for module in eager_engines(MODEL))


def inputs(seed: int = 0) -> list[Tensor]:
    batch = random_batch([9, 5], seed=seed, pad_to=16)
    return [
        batch.item_cat,
        batch.item_dense,
        batch.user_cat,
        batch.user_dense,
        batch.count.unsqueeze(1).int(),
    ]


def decoded(given: list[Tensor]) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        z, prior = ENCODER(*given)
        seed = torch.zeros(2, 1, dtype=torch.int64)
        rules = no_rules([0, 0], SPEC.list_size, 16)
        order, log_prob, _, _ = DECODER(z, prior, torch.zeros(2, 1), seed, *rules)
    return order, log_prob


@given(
    value=st.one_of(st.integers(-(2**31), -1), st.integers(62, 2**31 - 1)),
    place=st.tuples(st.integers(0, 1), st.integers(0, 15), st.just(0)),
)
def test_a_category_beyond_its_table_counts_as_missing(
    value: int, place: tuple[int, int, int]
) -> None:
    wrong, missing = inputs(), inputs()
    wrong[0], missing[0] = wrong[0].clone(), missing[0].clone()
    wrong[0][place], missing[0][place] = value, 0
    for one, other in zip(ENCODER(*wrong), ENCODER(*missing)):
        assert torch.equal(one, other)


@given(value=st.one_of(st.integers(-(2**31), -1), st.integers(32, 2**31 - 1)))
def test_so_does_one_of_the_user(value: int) -> None:
    wrong, missing = inputs(), inputs()
    wrong[2], missing[2] = torch.full_like(wrong[2], value), torch.zeros_like(wrong[2])
    for one, other in zip(ENCODER(*wrong), ENCODER(*missing)):
        assert torch.equal(one, other)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_spoil_their_own_row_and_the_client_refuses_it(value: float) -> None:
    right = inputs()
    expected, _ = decoded(right)
    wrong = list(right)
    wrong[1] = right[1].clone()
    wrong[1][0, 2, 1] = value
    order, log_prob = decoded(wrong)
    assert torch.equal(order[1], expected[1]), "the neighbour"
    with pytest.raises(RerankError, match="cannot be trusted"):
        _check_row(order[0].tolist(), log_prob[0].numpy(), 9)


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_of_none_gives_no_list(count: int) -> None:
    wrong = inputs()
    wrong[4] = torch.tensor([[count], [5]], dtype=torch.int32)
    order, log_prob = decoded(wrong)
    assert order[0].tolist() == [-1] * SPEC.list_size
    assert np.isfinite(log_prob.numpy()).all()


def test_more_candidates_than_positions_are_an_error_of_the_call() -> None:
    given = inputs()
    given[0] = torch.zeros(2, MAX_CANDIDATES + 1, 2, dtype=torch.int32)
    given[1] = torch.zeros(2, MAX_CANDIDATES + 1, 4)
    with pytest.raises(Exception, match="more candidates than positions"):
        ENCODER(*given)


@pytest.mark.parametrize(
    "engine", [lambda: ENCODER, lambda: DECODER, lambda: compile_engine(NoiseEngine(3))]
)
def test_tensors_are_made_where_the_inputs_are(
    engine: Callable[[], torch.jit.ScriptModule],
) -> None:
    """An engine that is made on a CPU may not make CPU tensors on a GPU: no device is a constant.

    That holds for those that are left out, too: None is the CPU.
    """
    graph = engine().inlined_graph  # its nodes live as long as it does
    makers = ("zeros", "ones", "full", "arange", "empty", "tensor", "eye", "linspace")
    found = [node for name in makers for node in graph.findAllNodes(f"aten::{name}", recurse=True)]
    assert found
    wrong = [str(node) for node in found if node.namedInput("device").node().kind() == CONSTANT]
    assert not wrong
    constants = graph.findAllNodes(CONSTANT, recurse=True)
    assert "DeviceObjType" not in {node.output().type().kind() for node in constants}

"""Lower precision: ties of sampled lists, ranking-metric parity, and the gates it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.datasets import read_dataset
from contracts.encoding import EncodedBatch
from contracts.releases import Gate
from tests.model.tiny import SPEC, lively_model, random_batch
from tests.training.runs import make_data
from training.data.arrays import load_slates
from training.engines.formats import PARITY
from training.engines.gates import missing_gates, of_graph
from training.engines.metric_parity import LIMIT, METRIC, metric_gate
from training.engines.onnx_graph import ExportedDecoder, ExportedEncoder, NoiseEngine
from training.engines.onnx_runtime import seeded
from training.engines.parity import REQUIRED_GATES, Engines, pad, parity_gates
from training.engines.torchscript import eager_engines
from training.export import requests_of
from training.model.gen_reranker import GenReranker
from training.settings import ModelSettings

MODEL = lively_model(4, pairwise=("colour",))
EAGER = Engines(*eager_engines(MODEL), SPEC.list_size)


def batches(count: int) -> list[EncodedBatch]:
    rng = np.random.default_rng(1)
    found = []
    for seed in range(count):
        batch = random_batch([int(m) for m in rng.integers(1, 17, 32)], seed=seed)
        arrays = (batch.item_cat, batch.item_dense, batch.user_cat, batch.user_dense)
        encoded = EncodedBatch(*(one.numpy() for one in arrays), batch.count.numpy())
        found.append(pad(encoded, SPEC.bucket(encoded.item_cat.shape[1])))
    return found


def rounded(precision: Any, model: GenReranker = MODEL) -> Engines:
    """Engines that compute in a precision: the modules that plans are exported from."""
    n = model.spec.list_size
    decode = seeded(ExportedDecoder(model, precision).eval(), NoiseEngine(n))
    return Engines(ExportedEncoder(model, precision).eval(), decode, n)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_lower_precision_passes_its_own_limits_and_not_those_of_fp32(precision: Any) -> None:
    requests = batches(6)
    gates = parity_gates(
        EAGER, rounded(precision), requests, SPEC.candidate_buckets, PARITY[precision]
    )
    assert [gate.detail for gate in gates if not gate.passed] == []
    exact = parity_gates(
        EAGER, rounded(precision), requests[:1], SPEC.candidate_buckets, PARITY["fp32"]
    )
    assert not all(gate.passed for gate in exact), "the precision changes nothing"


class Swapped(torch.nn.Module):
    """A decoder that is sure of the wrong items."""

    def __init__(self) -> None:
        super().__init__()
        self.decode = EAGER.decode

    def forward(self, z: Tensor, prior: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        order, *others = self.decode(z, prior, *rest)
        return (torch.where((order >= 0) & (order < 2), 1 - order, order), *others)


def test_wrong_lists_are_no_ties() -> None:
    wrong = Engines(EAGER.encode, Swapped(), SPEC.list_size)  # type: ignore[arg-type]
    gates = parity_gates(EAGER, wrong, batches(2), SPEC.candidate_buckets, PARITY["bf16"])
    assert not next(gate for gate in gates if gate.name == "parity.eager.order").passed


@pytest.fixture(scope="module")
def slates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("slates"), 400)


def test_ranking_metrics_of_equal_and_of_worse_engines(slates: Path) -> None:
    spec = read_dataset(slates)[1]
    torch.manual_seed(0)
    settings = ModelSettings(width=8, encoder_layers=1, decoder_layers=1, attention_heads=2)
    model = GenReranker(spec, settings).eval()
    eager = Engines(*eager_engines(model), spec.list_size)
    arrays = load_slates(slates / "test", spec)
    requests = list(requests_of(arrays, spec))
    gate = metric_gate(eager, rounded("fp16", model), requests, arrays)
    assert (gate.name, gate.passed) == (METRIC, True)
    assert f"{len(arrays.count)} lists" in gate.detail

    def backwards(z: Tensor, prior: Tensor, *rest: Tensor) -> Any:
        real = prior > -1e8
        return eager.decode(z, torch.where(real, -prior, prior), *rest)

    worse = metric_gate(eager, Engines(eager.encode, backwards, spec.list_size), requests, arrays)
    assert not worse.passed
    assert worse.value > LIMIT


def gate(name: str) -> Gate:
    return Gate(name=name, passed=True, value=0.0, limit=0.0)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gates_of_a_graph_are_not_those_of_engines(precision: str) -> None:
    names = [*REQUIRED_GATES, *([METRIC] if precision != "fp32" else [])]
    ran = tuple(map(gate, names))
    graph = of_graph(ran, "the graph")
    assert missing_gates(ran, precision, False) is None
    assert missing_gates(graph, precision, True) is None
    refused = missing_gates(graph, precision, False)
    assert refused is not None
    assert "--accept-graph-parity" in refused
    for accepted in (False, True):
        some = missing_gates(graph[:-1], precision, accepted)
        assert some is not None
        assert "not run" in some


def test_a_lower_precision_needs_the_ranking_metrics() -> None:
    ran = tuple(map(gate, REQUIRED_GATES))
    assert missing_gates(ran, "fp32", False) is None
    told = missing_gates(ran, "fp16", False)
    assert told is not None
    assert METRIC in told

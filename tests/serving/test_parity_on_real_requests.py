"""The parity gate on a thousand real requests of KuaiRand, engine files against eager."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from contracts.datasets import read_dataset
from training.data.arrays import SlateArrays, load_slates
from training.decoding.run import decode_slates
from training.engines.formats import PARITY
from training.engines.parity import REQUIRED_GATES, Engines, parity_gates
from training.engines.torchscript import (
    DECODER_FILE,
    ENCODER_FILE,
    eager_engines,
    load_engine,
    save_engines,
)
from training.export import requests_of
from training.model.gen_reranker import GenReranker
from training.settings import ModelSettings
from training.sources.initial_ranker import RankerSettings
from training.sources.kuairand import KuaiRand
from training.sources.kuairand_settings import KuaiRandSettings
from training.sources.writing import write_dataset

REQUESTS = 1000


@pytest.fixture(scope="module")
def slates(kuairand: Path, tmp_path_factory: pytest.TempPathFactory) -> SlateArrays:
    """The lists of one user in six, prepared as ``training/prepare.py`` does."""
    folder = tmp_path_factory.mktemp("kuairand")
    for path in kuairand.glob("*.csv.gz"):
        with gzip.open(path, "rt") as file, (folder / path.stem).open("w") as out:
            out.write(next(file))
            for line in file:
                if path.name.startswith("video") or int(line.split(",", 1)[0]) % 6 == 0:
                    out.write(line)
    source = KuaiRand(folder, KuaiRandSettings(ranker=RankerSettings(epochs=1)))
    write_dataset(source, folder / "slates")
    _, spec = read_dataset(folder / "slates")
    return load_slates(folder / "slates" / "train", spec, REQUESTS)


def lively(slates: SlateArrays) -> GenReranker:
    """Lists that follow from content and prefix; any engine can give the given order back."""
    torch.manual_seed(0)
    settings = ModelSettings(encoder_layers=2, decoder_layers=2, pairwise=("author_id", "tag"))
    model = GenReranker(slates.spec, settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        model.encoder.position_prior *= 0.3
        model.decoder.query.weight.normal_(std=0.4)
    return model.eval().requires_grad_(False)


def test_engine_files_answer_as_eager_does(slates: SlateArrays, tmp_path: Path) -> None:
    model, spec = lively(slates), slates.spec
    orders = decode_slates(model, slates, spec.list_size)
    assert len(orders) == REQUESTS
    assert (orders != range(spec.list_size)).any(axis=1).mean() > 0.9
    save_engines(model, tmp_path)
    engines = Engines(
        load_engine(tmp_path / ENCODER_FILE), load_engine(tmp_path / DECODER_FILE), spec.list_size
    )
    eager = Engines(*eager_engines(model), spec.list_size)
    gates = parity_gates(
        eager, engines, requests_of(slates, spec), spec.candidate_buckets, PARITY["fp32"]
    )
    assert tuple(gate.name for gate in gates) == REQUIRED_GATES
    for gate in gates:
        assert gate.passed, gate
        # Greedy, sampled, and greedy within rules.
        assert f"{3 * REQUESTS} rows" in gate.detail

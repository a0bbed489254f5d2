"""A release of the paper's model with random weights, on which times do not depend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.decode import bench_spec, random_inputs
from contracts.encoding import FeatureEncoder
from contracts.releases import DataVersion
from contracts.slates import Candidate, RerankRequest
from training.checkpoint import Checkpoint
from training.engines.formats import EngineSettings
from training.export import export_engines
from training.model.gen_reranker import GenReranker
from training.release.publishing import publish
from training.settings import ModelSettings, TrainingSettings


def publish_random(
    folder: Path,
    list_size: int,
    candidates: Sequence[int],
    engine: EngineSettings | None = None,
) -> Path:
    """Export and publish a model, its parity checked at each number of candidates."""
    spec = bench_spec(list_size)
    torch.manual_seed(0)
    settings = TrainingSettings(model=ModelSettings())
    checkpoint = Checkpoint(
        spec=spec,
        settings=settings,
        stage="pretrain",
        weights=GenReranker(spec, settings.model).state_dict(),
        data={},
        parents={},
        scores={},
    )
    encoder = FeatureEncoder(spec)
    some = [encoder.encode([random_request(m, list_size)] * 2) for m in candidates]
    data = DataVersion(dataset="random", fingerprint="random")
    export_engines(checkpoint, some, data, folder / "engines", engine=engine)
    return publish(folder / "engines", folder / "releases")


def random_request(candidates: int, list_size: int) -> RerankRequest:
    """A request for the spec of ``bench_spec``; others each time unless torch is seeded."""
    spec = bench_spec(list_size)
    item_cat, item_dense, *_ = random_inputs(spec, 1, candidates)
    names = [feature.name for feature in spec.item.categorical if feature.name != "item"]
    return RerankRequest(
        request_id="bench",
        user="u1",
        candidates=tuple(
            Candidate(
                item=f"i{index}",
                score=float(item_dense[0, index, 0]),
                features={name: int(item_cat[0, index, 0]) for name in names} | {"duration": 30.0},
            )
            for index in range(candidates)
        ),
        user_features={"segment": "g1", "activity": 0.5},
    )

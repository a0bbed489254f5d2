"""Base configurations of model_repository/base, stamped for one release as ModelConfig messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.features import FeatureGroup, FeatureSpec
from contracts.reading import ContractError, canonical_json
from training.release.serving_settings import ServingSettings

BASE = Path(__file__).resolve().parents[2] / "model_repository" / "base"
PREFIX = "gref"
ENGINE_FILE = "model.pt"
#: Runs of each warm-up shape: TorchScript profiles in the first and optimises in the second.
WARMUP_RUNS = 2

Part = Literal["encoder", "decoder", "ensemble"]


@dataclass(frozen=True)
class ReleaseFacts:
    """What a configuration needs to know of its release. D is the width of Z."""

    name: str
    spec: FeatureSpec
    width_D: int
    heads: int
    engine_sha256: Mapping[str, str]


def model_name(release: str, part: Part) -> str:
    """The Triton model of a part: gref_r0007_encoder, gref_r0007_decoder, gref_r0007."""
    return f"{PREFIX}_{release}" if part == "ensemble" else f"{PREFIX}_{release}_{part}"


def read_base(part: Part, base: Path = BASE) -> model_config_pb2.ModelConfig:
    """Parse a base configuration strictly; raises ContractError that names file, line and cause."""
    path = base / part / "config.pbtxt"
    try:
        text = path.read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError) as error:
        raise ContractError(f"{path}: {error}") from error


def stamp(
    part: Part, facts: ReleaseFacts, settings: ServingSettings, base: Path = BASE
) -> model_config_pb2.ModelConfig:
    """The configuration of one of the three models of a release.

    Raises:
        ContractError: the base configuration is unreadable or lacks a tensor of the interface.
    """
    config = read_base(part, base)
    config.name = model_name(facts.name, part)
    config.max_batch_size = settings.max_batch_size
    _set_dims(part, config, _dims(facts))
    if part == "ensemble":
        steps = config.ensemble_scheduling.step
        for step, name in zip(steps, ("encoder", "decoder"), strict=True):
            step.model_name = model_name(facts.name, name)  # type: ignore[arg-type]
            step.model_version = 1
        _set_parameters(config, _served_parameters(facts))
        return config
    config.dynamic_batching.default_queue_policy.max_queue_size = settings.max_queue_size
    config.instance_group[0].count = settings.instances
    _set_parameters(config, _engine_parameters(part, facts, settings))
    if settings.warmup:
        for bucket in facts.spec.candidate_buckets:
            config.model_warmup.append(_warmup(config, bucket))
    return config


def to_text(config: model_config_pb2.ModelConfig, part: Part, release: str) -> str:
    """A stamped configuration as config.pbtxt."""
    header = f"# Stamped for release {release} from model_repository/base/{part}. Do not edit.\n"
    text: str = text_format.MessageToString(config)
    return header + text


def warmup_files(settings: ServingSettings, spec: FeatureSpec) -> dict[str, bytes]:
    """Files of the encoder's ``warmup`` folder: the COUNT of each bucket, which may not be zero."""
    if not settings.warmup:
        return {}
    return {_count_file(b): b.to_bytes(4, "little") for b in spec.candidate_buckets}


def _count_file(bucket: int) -> str:
    return f"count_{bucket}"


def _dims(facts: ReleaseFacts) -> dict[str, list[int]]:
    spec, n = facts.spec, facts.spec.list_size
    return {
        "ITEM_CAT": [-1, spec.item.categorical_columns],
        "ITEM_DENSE": [-1, spec.item.dense_columns],
        "USER_CAT": [spec.user.categorical_columns],
        "USER_DENSE": [spec.user.dense_columns],
        "COUNT": [1],
        "Z": [-1, facts.width_D],
        "PRIOR": [-1],
        "TEMPERATURE": [1],
        "SEED": [1],
        "PINNED": [n],
        "GROUP": [-1],
        "LIMIT": [2],
        "ORDER": [n],
        "LOG_PROB": [n],
        "PASSES": [1],
        "RELAXED": [2],
    }


def _set_dims(
    part: Part, config: model_config_pb2.ModelConfig, dims: Mapping[str, Iterable[int]]
) -> None:
    for tensor in (*config.input, *config.output):
        if tensor.name not in dims:
            raise ContractError(f"base/{part}: {tensor.name} is not in the engine interface")
        tensor.ClearField("dims")
        tensor.dims.extend(dims[tensor.name])


def _set_parameters(config: model_config_pb2.ModelConfig, parameters: Mapping[str, str]) -> None:
    for name, value in parameters.items():
        config.parameters[name].string_value = value


def _served_parameters(facts: ReleaseFacts) -> dict[str, str]:
    return {
        "feature_spec": canonical_json(facts.spec).decode(),
        "feature_spec_sha256": facts.spec.hash(),
        "release": facts.name,
        "list_size": str(facts.spec.list_size),
        "heads": str(facts.heads),
    }


def _engine_parameters(
    part: Part, facts: ReleaseFacts, settings: ServingSettings
) -> dict[str, str]:
    parameters = {
        "part": part,
        "engine_file": ENGINE_FILE,
        "engine_sha256": facts.engine_sha256[part],
        "intra_op_threads": str(settings.intra_op_threads),
    }
    if part == "encoder":
        parameters["item_cat_rows"] = _rows(facts.spec.item)
        parameters["user_cat_rows"] = _rows(facts.spec.user)
    return parameters


def _rows(group: FeatureGroup) -> str:
    """Rows of each categorical column as JSON; a group without any has one constant column."""
    rows = [feature.rows for feature in group.categorical] or [1]
    return canonical_json(rows).decode()


def _warmup(config: model_config_pb2.ModelConfig, bucket: int) -> model_config_pb2.ModelWarmup:
    warmup = model_config_pb2.ModelWarmup(
        name=f"candidates_{bucket}", batch_size=1, count=WARMUP_RUNS
    )
    for tensor in config.input:
        entry = warmup.inputs[tensor.name]
        entry.data_type = tensor.data_type
        entry.dims.extend(bucket if dim == -1 else dim for dim in tensor.dims)
        if tensor.name == "COUNT":
            entry.input_data_file = _count_file(bucket)
        else:
            entry.zero_data = True
    return warmup

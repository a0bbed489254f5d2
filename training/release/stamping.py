"""Base configurations of model_repository/base, stamped for one release as ModelConfig messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.features import FeatureGroup, FeatureSpec
from contracts.reading import ContractError, canonical_json
from training.release.profiles import ENGINE_FILES, PROFILES, Part, parts_of
from training.release.serving_settings import ServingSettings

BASE = Path(__file__).resolve().parents[2] / "model_repository" / "base"
PREFIX = "gref"
#: Runs of each warm-up: TorchScript profiles in the first and optimises in the second.
WARMUP_RUNS = 2


@dataclass(frozen=True)
class ReleaseFacts:
    """What a configuration needs to know of its release. D is the width of Z.

    Attributes:
        tensors: part -> names of the engine interface -> names in the engine file, of those that
            differ from the base configuration's.
        on_gpu: whether aoti packages were compiled for a GPU.
        format: of the encoder's and the decoder's engine.
        versions: of what compiled them, where they run with nothing else: ``cpu`` and ``torch``.
    """

    name: str
    spec: FeatureSpec
    width_D: int
    heads: int
    engine_sha256: Mapping[str, str]
    tensors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    on_gpu: bool = False
    format: str = "torchscript"
    versions: Mapping[str, str] = field(default_factory=dict)


def model_name(release: str, part: Part) -> str:
    """The Triton model of a part: gref_r0007_encoder, gref_r0007_decoder, gref_r0007."""
    return f"{PREFIX}_{release}" if part == "ensemble" else f"{PREFIX}_{release}_{part}"


def read_base(part: Part, base: Path = BASE, profile: str = "cpu") -> model_config_pb2.ModelConfig:
    """Parse a base configuration strictly; raises ContractError that names file, line and cause."""
    path = base / profile / part / "config.pbtxt"
    try:
        text = path.read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError) as error:
        raise ContractError(f"{path}: {error}") from error


def stamp(
    part: Part, facts: ReleaseFacts, settings: ServingSettings, base: Path = BASE
) -> model_config_pb2.ModelConfig:
    """The configuration of one of the models of a release.

    Raises:
        ContractError: the base configuration is unreadable or lacks a tensor of the interface.
    """
    profile = settings.profile
    config = read_base(part, base, profile)
    config.name = model_name(facts.name, part)
    config.max_batch_size = settings.max_batch_size
    if part == "ensemble":
        _set_dims(f"{profile}/{part}", config, _dims(facts), {})
        _set_steps(config, facts, profile)
        _set_parameters(config, _served_parameters(facts))
        return config
    names = _interface_names(read_base("ensemble", base, profile), part)
    _set_dims(f"{profile}/{part}", config, _dims(facts), names)
    _set_batching(config, settings)
    config.instance_group[0].count = settings.instances
    if profile == "aoti":
        group = config.instance_group[0]
        group.kind = group.KIND_GPU if facts.on_gpu else group.KIND_CPU
    _set_parameters(config, _engine_parameters(part, facts, settings))
    if settings.warmup:
        for bucket in facts.spec.candidate_buckets:
            for size in settings.warmup_batches:
                if size <= settings.max_batch_size:
                    config.model_warmup.append(_warmup(config, bucket, size, names))
    _rename(config, names, facts.tensors.get(part, {}))
    return config


def to_text(
    config: model_config_pb2.ModelConfig, part: Part, release: str, profile: str = "cpu"
) -> str:
    """A stamped configuration as config.pbtxt."""
    source = f"model_repository/base/{profile}/{part}"
    header = f"# Stamped for release {release} from {source}. Do not edit.\n"
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
        "NOISE": [n, -1],
        "PINNED": [n],
        "GROUP": [-1],
        "LIMIT": [2],
        "ORDER": [n],
        "LOG_PROB": [n],
        "PASSES": [1],
        "RELAXED": [2],
    }


def _interface_names(ensemble: model_config_pb2.ModelConfig, part: Part) -> dict[str, str]:
    """A step's tensors -> their names in the ensemble, which are the engine interface's."""
    step = _steps(ensemble)[part]
    return {**step.input_map, **step.output_map}


def _steps(ensemble: model_config_pb2.ModelConfig) -> dict[str, model_config_pb2.ModelEnsembling]:
    steps = ensemble.ensemble_scheduling.step
    return {step.model_name.removeprefix(f"{PREFIX}_"): step for step in steps}


def _set_steps(ensemble: model_config_pb2.ModelConfig, facts: ReleaseFacts, profile: str) -> None:
    """Pin the steps to the release's models, under the tensor names of its engine files."""
    steps = _steps(ensemble)
    wanted = parts_of(profile)[:-1]
    if tuple(steps) != wanted:
        raise ContractError(
            f"base/{profile}/ensemble: the steps are {', '.join(steps)}; allowed: "
            f"{', '.join(f'{PREFIX}_{part}' for part in wanted)}"
        )
    for part, step in steps.items():
        step.model_name = model_name(facts.name, part)  # type: ignore[arg-type]
        step.model_version = 1
        own = facts.tensors.get(part, {})
        for wiring in (step.input_map, step.output_map):
            for key, name in list(wiring.items()):
                if name in own:
                    del wiring[key]
                    wiring[own[name]] = name


def _rename(
    config: model_config_pb2.ModelConfig, names: Mapping[str, str], own: Mapping[str, str]
) -> None:
    """Give tensors the names that they have in the engine file."""
    renamed = {key: own[name] for key, name in names.items() if name in own}
    for tensor in (*config.input, *config.output):
        tensor.name = renamed.get(tensor.name, tensor.name)
    for warmup in config.model_warmup:
        for key, name in renamed.items():
            if key in warmup.inputs:
                warmup.inputs[name].CopyFrom(warmup.inputs[key])
                del warmup.inputs[key]


def _set_dims(
    where: str,
    config: model_config_pb2.ModelConfig,
    dims: Mapping[str, list[int]],
    names: Mapping[str, str],
) -> None:
    for tensor in (*config.input, *config.output):
        name = names.get(tensor.name, tensor.name)
        if name not in dims:
            raise ContractError(f"base/{where}: {name} is not in the engine interface")
        tensor.ClearField("dims")
        tensor.dims.extend(dims[name])


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
    profile = PROFILES[settings.profile]
    parameters = {"part": part, "engine_sha256": facts.engine_sha256[part]}
    if profile.backends[part] != "python":
        return parameters  # the backend reads none of them: they are for people
    parameters["engine_file"] = ENGINE_FILES[facts.format]
    parameters |= {f"engine_{name}": version for name, version in facts.versions.items()}
    parameters["intra_op_threads"] = str(settings.intra_op_threads)
    parameters["max_candidates"] = str(facts.spec.max_candidates)
    if part == "encoder":
        parameters["item_cat_rows"] = _rows(facts.spec.item)
        parameters["user_cat_rows"] = _rows(facts.spec.user)
    return parameters


def _rows(group: FeatureGroup) -> str:
    """Rows of each categorical column as JSON; a group without any has one constant column."""
    rows = [feature.rows for feature in group.categorical] or [1]
    return canonical_json(rows).decode()


def _set_batching(config: model_config_pb2.ModelConfig, settings: ServingSettings) -> None:
    if not settings.batching:
        config.ClearField("dynamic_batching")
        return
    config.dynamic_batching.max_queue_delay_microseconds = settings.max_queue_delay_us
    config.dynamic_batching.preferred_batch_size.extend(settings.joined_sizes)
    if settings.max_queue_size:
        config.dynamic_batching.default_queue_policy.max_queue_size = settings.max_queue_size


def _warmup(
    config: model_config_pb2.ModelConfig, bucket: int, size: int, names: Mapping[str, str]
) -> model_config_pb2.ModelWarmup:
    """A batch of ``size`` requests that Triton joins, as it would users' requests."""
    warmup = model_config_pb2.ModelWarmup(
        name=f"candidates_{bucket}_batch_{size}", batch_size=size, count=WARMUP_RUNS
    )
    for tensor in config.input:
        entry = warmup.inputs[tensor.name]
        entry.data_type = tensor.data_type
        entry.dims.extend(bucket if dim == -1 else dim for dim in tensor.dims)
        if names.get(tensor.name) == "COUNT":
            entry.input_data_file = _count_file(bucket)
        else:
            entry.zero_data = True
    return warmup

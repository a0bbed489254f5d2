"""Base configurations and what publishing makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.reading import ContractError, convert, stable_hash
from tests.serving.toy_engines import SPEC
from training.release.serving_settings import ServingSettings
from training.release.stamping import BASE, ReleaseFacts, read_base, stamp, to_text, warmup_files

PARTS = ("encoder", "decoder", "ensemble")
FACTS = ReleaseFacts("r0042", SPEC, 12, 4, {"encoder": "e" * 64, "decoder": "d" * 64})


def parsed(part: str, facts: ReleaseFacts = FACTS, settings: ServingSettings = ServingSettings()):
    """A stamped configuration after a round trip through its text, as Triton reads it."""
    text = to_text(stamp(part, facts, settings), part, facts.name)
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def dims(config, name: str) -> list[int]:
    return next(list(t.dims) for t in (*config.input, *config.output) if t.name == name)


@pytest.mark.parametrize("part", PARTS)
def test_base_is_readable_and_strict(part: str, tmp_path: Path) -> None:
    text = (BASE / "cpu" / part / "config.pbtxt").read_text()
    assert text.startswith("#"), "a base configuration explains itself"
    assert read_base(part).max_batch_size == 64
    (tmp_path / "cpu" / part).mkdir(parents=True)
    (tmp_path / "cpu" / part / "config.pbtxt").write_text(text + "\nmax_batchsize: 8\n")
    with pytest.raises(ContractError, match=rf"{part}/config.pbtxt.*max_batchsize"):
        read_base(part, tmp_path)


def test_names_and_pinned_steps() -> None:
    assert [parsed(part).name for part in PARTS] == [
        "gref_r0042_encoder",
        "gref_r0042_decoder",
        "gref_r0042",
    ]
    steps = parsed("ensemble").ensemble_scheduling.step
    assert [(s.model_name, s.model_version) for s in steps] == [
        ("gref_r0042_encoder", 1),
        ("gref_r0042_decoder", 1),
    ]
    for part in PARTS:
        assert list(parsed(part).version_policy.specific.versions) == [1]


def test_ensemble_wires_every_tensor_of_its_steps() -> None:
    ensemble = parsed("ensemble")
    outer = {t.name: list(t.dims) for t in ensemble.input}
    for step, part in zip(ensemble.ensemble_scheduling.step, ("encoder", "decoder")):
        config = parsed(part)
        assert set(step.input_map) == {t.name for t in config.input}
        assert set(step.output_map) == {t.name for t in config.output}
        for tensor in config.input:
            known = outer | {t.name: list(t.dims) for t in parsed("encoder").output}
            assert known[step.input_map[tensor.name]] == list(tensor.dims)


def test_the_queue_has_no_policy_unless_a_bound_is_asked_for() -> None:
    """Any policy would turn Triton's prefetching off (docs/serving.md)."""
    for part in ("encoder", "decoder"):
        assert not parsed(part).dynamic_batching.HasField("default_queue_policy")
        policy = parsed(part, settings=ServingSettings(max_queue_size=7))
        policy = policy.dynamic_batching.default_queue_policy
        assert policy.default_timeout_microseconds == 0
        assert policy.max_queue_size == 7


def test_spec_is_read_back_from_the_ensemble() -> None:
    parameters = {k: v.string_value for k, v in parsed("ensemble").parameters.items()}
    spec = convert(json.loads(parameters["feature_spec"]), FeatureSpec, "parameters")
    assert spec == SPEC
    assert parameters["feature_spec_sha256"] == stable_hash(spec) == SPEC.hash()
    assert (parameters["release"], parameters["list_size"], parameters["heads"]) == (
        "r0042",
        "5",
        "4",
    )


def test_engine_parameters() -> None:
    encoder = {k: v.string_value for k, v in parsed("encoder").parameters.items()}
    assert encoder["engine_sha256"] == "e" * 64
    assert json.loads(encoder["item_cat_rows"]) == [202, 5]
    assert json.loads(encoder["user_cat_rows"]) == [52]
    decoder = parsed("decoder", settings=ServingSettings(instances=3, intra_op_threads=2))
    assert decoder.parameters["intra_op_threads"].string_value == "2"
    assert decoder.instance_group[0].count == 3


def test_warmup_runs_every_bucket_twice_alone_and_as_a_batch() -> None:
    for part in ("encoder", "decoder"):
        warmups = parsed(part).model_warmup
        first = "ITEM_CAT" if part == "encoder" else "Z"
        assert [(w.inputs[first].dims[0], w.batch_size) for w in warmups] == [
            (bucket, size) for bucket in SPEC.candidate_buckets for size in (1, 8)
        ]
        assert {w.count for w in warmups} == {2}
        assert len({w.name for w in warmups}) == len(warmups)
    files = warmup_files(ServingSettings(), SPEC)
    for warmup in parsed("encoder").model_warmup:
        count = int.from_bytes(files[warmup.inputs["COUNT"].input_data_file], "little")
        assert count == warmup.inputs["ITEM_CAT"].dims[0]
    small = parsed("encoder", settings=ServingSettings(max_batch_size=4))
    assert {w.batch_size for w in small.model_warmup} == {1}, "8 would not be served"
    off = ServingSettings(warmup=False)
    assert not parsed("encoder", settings=off).model_warmup
    assert not warmup_files(off, SPEC)


def test_batching_can_wait_for_company_or_be_off() -> None:
    waiting = parsed("decoder", settings=ServingSettings(max_queue_delay_us=500))
    assert waiting.dynamic_batching.max_queue_delay_microseconds == 500
    capped = parsed("decoder", settings=ServingSettings(preferred_batch_sizes=(4, 8)))
    assert list(capped.dynamic_batching.preferred_batch_size) == [4, 8]
    for unbounded in (
        ServingSettings(preferred_batch_sizes=()),
        ServingSettings(max_batch_size=8),
        ServingSettings(profile="gpu"),
    ):
        assert not parsed("decoder", settings=unbounded).dynamic_batching.preferred_batch_size
    assert list(parsed("decoder").dynamic_batching.preferred_batch_size) == [16]
    for part in ("encoder", "decoder"):
        assert parsed(part).HasField("dynamic_batching")
        assert not parsed(part, settings=ServingSettings(batching=False)).HasField(
            "dynamic_batching"
        )


names = st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), unique=True, max_size=6)


@given(item=names, user=names, split=st.integers(0, 6), width=st.integers(1, 512))
def test_widths_follow_any_spec(item: list[str], user: list[str], split: int, width: int) -> None:
    def group(columns: list[str]) -> FeatureGroup:
        return FeatureGroup(
            categorical=tuple(Categorical(name=c, buckets=9, width=2) for c in columns[:split]),
            dense=tuple(Dense(name=c) for c in columns[split:]),
        )

    spec = FeatureSpec(
        user=group(user),
        item=group(item),
        list_size=3,
        feedback=(FeedbackKind(kind="click", type="binary"),),
        utility="click",
    )
    facts = ReleaseFacts("r0001", spec, width, 1, {"encoder": "", "decoder": ""})
    encoder, decoder, ensemble = (parsed(part, facts) for part in PARTS)
    # Oracle: count the features by hand; a group without any of a kind has one constant column.
    expected = {
        "ITEM_CAT": [-1, max(1, len(item[:split]))],
        "ITEM_DENSE": [-1, 2 * max(1, len(item[split:]))],
        "USER_CAT": [max(1, len(user[:split]))],
        "USER_DENSE": [2 * max(1, len(user[split:]))],
    }
    for name, shape in expected.items():
        assert dims(encoder, name) == dims(ensemble, name) == shape
    assert dims(encoder, "Z") == dims(decoder, "Z") == [-1, width]
    assert dims(decoder, "ORDER") == dims(ensemble, "ORDER") == [3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"instances": 0},
        {"max_batch_size": 5000},
        {"max_queue_delay_us": -1},
        {"max_queue_size": -1},
        {"preferred_batch_sizes": (8, 65)},
        {"max_queue_size": 8, "batching": False},
        {"warmup_batches": (1, 0)},
    ],
)
def test_impossible_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        ServingSettings(**wrong)

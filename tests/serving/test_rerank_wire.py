"""What the client trusts: answers that are lists, and configurations that are releases."""

from __future__ import annotations

import json

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

from contracts.encoding import FeatureEncoder
from contracts.rules import without_rules
from contracts.slates import Candidate, RerankRequest, distinct
from handlers.rerank_result import RerankError, given_order
from handlers.rerank_wire import infer_request, read_lists
from handlers.served_release import newest_release, read_release
from tests.serving.toy_engines import SPEC, toy_request
from training.release.serving_settings import ServingSettings
from training.release.stamping import ReleaseFacts, stamp

TYPES = {"ORDER": "INT32", "LOG_PROB": "FP32", "PASSES": "INT32"}


def response(**tensors: np.ndarray) -> service_pb2.ModelInferResponse:
    message = service_pb2.ModelInferResponse()
    for name, tensor in tensors.items():
        message.outputs.add(name=name, datatype=TYPES[name], shape=tensor.shape)
        message.raw_output_contents.append(tensor.tobytes())
    return message


def answer(order: list[list[int]], log_prob: float = -1.0) -> service_pb2.ModelInferResponse:
    array = np.array(order, np.int32)
    return response(
        ORDER=array,
        LOG_PROB=np.full(array.shape, log_prob, np.float32),
        PASSES=np.full((len(array), 1), 3, np.int32),
    )


def is_a_list(order: list[int], count: int) -> bool:
    """An oracle in other words: the sorted real entries are distinct, known, and fill the front."""
    real = [index for index in order if index != -1]
    return (
        order == real + [-1] * (len(order) - len(real))
        and len(real) == min(count, len(order))
        and sorted(set(real)) == sorted(real)
        and set(real) <= set(range(count))
    )


@given(order=st.lists(st.integers(-2, 6), min_size=4, max_size=4), count=st.integers(1, 6))
def test_only_lists_are_accepted(order: list[int], count: int) -> None:
    accept(order, count)


@given(st.permutations(range(6)), st.integers(1, 6))
def test_every_list_is_accepted(permutation: list[int], count: int) -> None:
    chosen = [index for index in permutation if index < count][:4]
    accept(chosen + [-1] * (4 - len(chosen)), count, must=True)


def accept(order: list[int], count: int, must: bool = False) -> None:
    if must:
        assert is_a_list(order, count)
    if is_a_list(order, count):
        assert read_lists(answer([order]), [count], 4).order_BN.tolist() == [order]
    else:
        with pytest.raises(RerankError, match="cannot be trusted") as refused:
            read_lists(answer([order]), [count], 4)
        assert refused.value.fallback == "bad_response"


@pytest.mark.parametrize("log_prob", [float("nan"), float("inf"), float("-inf"), 0.5])
def test_impossible_probabilities(log_prob: float) -> None:
    with pytest.raises(RerankError, match="LOG_PROB"):
        read_lists(answer([[0, 1]], log_prob), [2], 2)


def test_missing_or_misshapen_outputs() -> None:
    order = np.array([[0, 1]], np.int32)
    with pytest.raises(RerankError, match="no LOG_PROB, PASSES"):
        read_lists(response(ORDER=order), [2], 2)
    with pytest.raises(RerankError, match=r"ORDER is INT32 \[1, 2\]"):
        read_lists(answer([[0, 1]]), [2], 3)
    with pytest.raises(RerankError, match="ORDER"):
        read_lists(answer([[0, 1]]), [2, 2], 2)
    with pytest.raises(RerankError, match="no LOG_PROB, ORDER, PASSES"):
        read_lists(service_pb2.ModelInferResponse(), [2], 2)


def test_request_message_carries_the_batch() -> None:
    batch = FeatureEncoder(SPEC).encode([toy_request(1, 3), toy_request(2, 5)])
    rules = without_rules(2, 4, batch.item_cat.shape[1])
    message = infer_request("gref_r0001", batch, rules, 0.5, [7, -8])
    sent = {
        tensor.name: (tensor.datatype, list(tensor.shape), raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents)
    }
    assert sent["ITEM_CAT"] == ("INT32", [2, 8, 2], batch.item_cat.tobytes())
    assert sent["COUNT"] == ("INT32", [2, 1], np.array([3, 5], "<i4").tobytes())
    assert sent["TEMPERATURE"] == ("FP32", [2, 1], np.array([0.5, 0.5], "<f4").tobytes())
    assert sent["SEED"] == ("INT64", [2, 1], np.array([7, -8], "<i8").tobytes())


def config() -> model_config_pb2.ModelConfig:
    facts = ReleaseFacts("r0001", SPEC, 12, 2, {"encoder": "", "decoder": ""})
    return stamp("ensemble", facts, ServingSettings(max_batch_size=9))


def test_a_release_is_read_back() -> None:
    served = read_release(config(), "r0001")
    assert (served.spec, served.max_batch_size, served.model) == (SPEC, 9, "gref_r0001")


def altered(name: str, value: str) -> model_config_pb2.ModelConfig:
    changed = text_format.Parse(
        text_format.MessageToString(config()), model_config_pb2.ModelConfig()
    )
    changed.parameters[name].string_value = value
    return changed


def test_configurations_that_are_no_release() -> None:
    other = json.loads(config().parameters["feature_spec"].string_value)
    other["list_size"] = 4
    for wrong, message in (
        (altered("feature_spec_sha256", "0" * 64), "states 000000000000"),
        (altered("feature_spec", json.dumps(other)), "differ in version"),
        (altered("feature_spec", "{"), "is no release"),
        (altered("feature_spec", '{"list_size": 3}'), "is no release"),
        (altered("release", "r0002"), "says that it is r0002"),
        (model_config_pb2.ModelConfig(name="simple"), "simple is no release"),
    ):
        with pytest.raises(RerankError, match=message) as refused:
            read_release(wrong, "r0001")
        assert refused.value.fallback == "bad_response"


def test_newest_release() -> None:
    models = ["gref_r0002", "gref_r0010_encoder", "gref_r0009", "simple", "gref_rabbit"]
    assert newest_release(models) == "r0009"
    with pytest.raises(RerankError, match="no release ready"):
        newest_release(["gref_r0010_encoder"])


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.integers(1, 5))
def test_given_order_is_the_first_of_each_item(items: list[str], list_size: int) -> None:
    candidates = tuple(Candidate(item=item) for item in items)
    request = RerankRequest(request_id="r", user="u", candidates=candidates)
    shown = [items[index] for index in distinct(request)]
    assert shown == list(dict.fromkeys(items))
    assert given_order(request, list_size) == distinct(request)[:list_size]
    assert given_order(request, None) == distinct(request)

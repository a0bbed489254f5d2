"""Requests and answers of the ensemble as messages of Triton's gRPC protocol.

Axes: B batch, N list positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from contracts.encoding import EncodedBatch
from contracts.rules import EncodedRules
from handlers.rerank_result import Fallback, RerankError

_InferTensor = service_pb2.ModelInferRequest.InferInputTensor
#: Triton's names of the types; to look one up by ``dtype.name`` would cost as much as the encoding.
_INPUTS = {
    "ITEM_CAT": "INT32",
    "ITEM_DENSE": "FP32",
    "USER_CAT": "INT32",
    "USER_DENSE": "FP32",
    "COUNT": "INT32",
    "TEMPERATURE": "FP32",
    "SEED": "INT64",
    "PINNED": "INT32",
    "GROUP": "INT32",
    "LIMIT": "INT32",
}
#: RELAXED is not asked for: the client counts it for fallbacks too, where no server can.
_OUTPUTS: dict[str, tuple[str, Any]] = {
    "ORDER": ("INT32", np.int32),
    "LOG_PROB": ("FP32", np.float32),
    "PASSES": ("INT32", np.int32),
}
_ASKED = [service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in _OUTPUTS]
#: Log-probabilities are at most 0, up to rounding.
_ROUNDING = 1e-3

#: What Triton says where a release was published with a max_queue_size.
_FULL_QUEUE = "Exceeds maximum queue size"

_STATUS: dict[grpc.StatusCode, Fallback] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
    grpc.StatusCode.INVALID_ARGUMENT: "bad_request",
}


@dataclass(frozen=True)
class Lists:
    """Validated answers of a batch."""

    order_BN: npt.NDArray[np.int32]
    log_prob_BN: npt.NDArray[np.float32]
    passes_B: npt.NDArray[np.int32]


def infer_request(
    model: str,
    batch: EncodedBatch,
    rules: EncodedRules,
    temperature: float | Sequence[float],
    seeds: Sequence[int],
) -> service_pb2.ModelInferRequest:
    """The message that asks an ensemble for the lists of a batch; one temperature, or one a row."""
    rows = len(batch.count)
    tensors: tuple[npt.NDArray[Any], ...] = (  # in the order of _INPUTS
        batch.item_cat,
        batch.item_dense,
        batch.user_cat,
        batch.user_dense,
        batch.count[:, None],
        np.full((rows, 1), np.reshape(temperature, (-1, 1)), np.float32),
        np.array(seeds, np.int64)[:, None],
        rules.pinned,
        rules.group,
        rules.limit,
    )
    return service_pb2.ModelInferRequest(
        model_name=model,
        inputs=[
            _InferTensor(name=name, datatype=datatype, shape=tensor.shape)
            for (name, datatype), tensor in zip(_INPUTS.items(), tensors)
        ],
        raw_input_contents=[tensor.tobytes() for tensor in tensors],
        outputs=_ASKED,
    )


def read_lists(
    response: service_pb2.ModelInferResponse, counts: Sequence[int], list_size: int
) -> Lists:
    """The lists of a response, checked before anybody shows them.

    Args:
        counts: candidates of each row.

    Raises:
        RerankError: an output is missing or misshapen, or a row is no list of distinct candidates.
    """
    tensors: dict[str, npt.NDArray[Any]] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents):
        if output.name in _OUTPUTS:
            datatype, dtype = _OUTPUTS[output.name]
            values = np.frombuffer(raw, dtype)
            width = 1 if output.name == "PASSES" else list_size
            if output.datatype != datatype or values.size != len(counts) * width:
                raise _distrust(f"{output.name} is {output.datatype} {list(output.shape)}")
            tensors[output.name] = values.reshape(len(counts), width)
    missing = _OUTPUTS.keys() - tensors.keys()
    if missing:
        raise _distrust(f"no {', '.join(sorted(missing))}")
    lists = Lists(tensors["ORDER"], tensors["LOG_PROB"], tensors["PASSES"][:, 0])
    for row, count in enumerate(counts):
        _check_row(lists.order_BN[row].tolist(), lists.log_prob_BN[row], count)
    return lists


def _check_row(order: list[int], log_prob_N: npt.NDArray[np.float32], count: int) -> None:
    length = min(count, len(order))
    chosen, rest = order[:length], order[length:]
    in_range = all(0 <= index < count for index in chosen)
    if not in_range or len(set(chosen)) != length or any(index != -1 for index in rest):
        raise _distrust(f"ORDER is {order} for {count} candidates")
    if not (log_prob_N[:length] <= _ROUNDING).all() or not np.isfinite(log_prob_N).all():
        raise _distrust(f"LOG_PROB is {log_prob_N.tolist()}")


def _distrust(what: str) -> RerankError:
    return RerankError("bad_response", f"the answer cannot be trusted: {what}")


def rerank_error(error: grpc.RpcError) -> RerankError:
    """A gRPC error as the fallback that it means.

    Everything that is neither the caller's fault nor a matter of time or load is ``unavailable``:
    no server, no such release, an engine that failed.
    """
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAVAILABLE and _FULL_QUEUE in details:
        return RerankError("overloaded", f"{code.name}: {details}")
    # Some Triton versions say UNAVAILABLE of a model that is being unloaded.
    gone = code == grpc.StatusCode.NOT_FOUND or (
        code == grpc.StatusCode.UNAVAILABLE and "unknown model" in details
    )
    return RerankError(_STATUS.get(code, "unavailable"), f"{code.name}: {details}", gone=gone)

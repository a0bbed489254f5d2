"""Calls of TorchServe, over REST and gRPC: a RerankCall in, a RerankAnswer or the refusal out.

It has neither the deadline nor the fallback of ``handlers/client.py``, which is the client for
Triton; a ranking server that asks TorchServe adds both.
"""

from __future__ import annotations

import http.client
from typing import Any

import grpc
import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from contracts.rerank_call import RerankAnswer, RerankCall, RerankRefusal
from handlers.closing import Closing

_PACKAGE = "org.pytorch.serve.grpc.inference"
_METHOD = f"/{_PACKAGE}.InferenceAPIsService/Predictions"


class TorchServeRefusedError(Exception):
    """TorchServe gave no list.

    Attributes:
        status: the HTTP status, or 0 over gRPC, where a refused row comes as an answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class RestClient(Closing):
    """One connection to TorchServe's REST address. Not for several threads at once.

    After an exception other than TorchServeRefusedError it connects anew by itself.
    """

    def __init__(
        self, host: str, port: int, model: str, token: str = "", timeout_s: float = 60.0
    ) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        self._path = f"/predictions/{model}"
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def rerank(self, call: RerankCall) -> RerankAnswer:
        """The list of one call; raises TorchServeRefusedError, or OSError without an answer."""
        return _read(*self.send(msgspec.json.encode(call)))

    def send(self, body: bytes) -> tuple[int, bytes]:
        """Status and body that any body is answered with."""
        try:
            self._connection.request("POST", self._path, body=body, headers=self._headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()


class GrpcClient(Closing):
    """One channel to TorchServe's gRPC address; threads may share it."""

    def __init__(self, url: str, model: str, token: str = "") -> None:
        self._model = model
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel = grpc.insecure_channel(url)
        self._predict = self._channel.unary_unary(
            _METHOD,
            request_serializer=_Request.SerializeToString,
            response_deserializer=_Response.FromString,
        )

    def rerank(self, call: RerankCall, timeout_s: float = 60.0) -> RerankAnswer:
        """The list of one call; raises TorchServeRefusedError, or grpc.RpcError from the server."""
        return _read(0, self.send(msgspec.json.encode(call), timeout_s))

    def send(self, body: bytes, timeout_s: float = 60.0) -> bytes:
        """The body that any body is answered with; gRPC has no status for a refused row."""
        request = _Request(model_name=self._model, input={"data": body})
        response = self._predict(request, timeout=timeout_s, metadata=self._metadata)
        answer: bytes = response.prediction
        return answer

    def close(self) -> None:
        self._channel.close()


def _read(status: int, body: bytes) -> RerankAnswer:
    if status in (0, 200):
        try:
            return msgspec.json.decode(body, type=RerankAnswer)
        except msgspec.DecodeError:
            pass
    try:
        told = msgspec.json.decode(body, type=RerankRefusal).error
    except msgspec.DecodeError:  # the server's own words
        told = body.decode(errors="replace")
    raise TorchServeRefusedError(status, told)


def _messages() -> tuple[Any, Any]:
    """The two messages of TorchServe's inference.proto that a call needs, from their description.

    Its package ships no generated code; a pool of its own keeps out of the way of such code.
    """
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="gref/torchserve_inference.proto", package=_PACKAGE, syntax="proto3"
    )
    request = file.message_type.add(name="PredictionsRequest")
    for number, name in enumerate(("model_name", "model_version"), start=1):
        request.field.add(
            name=name, number=number, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL
        )
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=kinds.TYPE_BYTES, label=kinds.LABEL_OPTIONAL)
    request.field.add(
        name="input",
        number=3,
        type=kinds.TYPE_MESSAGE,
        label=kinds.LABEL_REPEATED,
        type_name=f".{_PACKAGE}.PredictionsRequest.InputEntry",
    )
    response = file.message_type.add(name="PredictionResponse")
    response.field.add(
        name="prediction", number=1, type=kinds.TYPE_BYTES, label=kinds.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return (
        message_factory.GetMessageClass(find(f"{_PACKAGE}.PredictionsRequest")),
        message_factory.GetMessageClass(find(f"{_PACKAGE}.PredictionResponse")),
    )


_Request, _Response = _messages()

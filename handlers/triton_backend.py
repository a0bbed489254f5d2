"""The Triton python-backend model that serves one engine of a release, encoder or decoder.

Publishing copies this file into the version folder of both models as ``model.py``; the model's
configuration says which of the two it is. It needs torch and nothing else of the project, since
the server's Python sees only the model's folder.

Parameters of the configuration: ``part`` (encoder or decoder), ``engine_file``, ``engine_sha256``
and ``intra_op_threads``; for the encoder also ``item_cat_rows`` and ``user_cat_rows``, the rows of
each embedding table.

A refused row never spoils its neighbours: requests are checked one by one, and where a joint call
fails each request is tried alone. Tensors cross by DLPack, both ways: it copies nothing, and
``as_numpy`` of this backend hands over empty tensors under numpy 2.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils

Tensors = list[torch.Tensor]

ENCODER_INPUTS = ("ITEM_CAT", "ITEM_DENSE", "USER_CAT", "USER_DENSE", "COUNT")
DECODER_INPUTS = ("Z", "PRIOR", "TEMPERATURE", "SEED", "PINNED", "GROUP", "LIMIT")
ENCODER_OUTPUTS = ("Z", "PRIOR")
DECODER_OUTPUTS = ("ORDER", "LOG_PROB", "PASSES", "RELAXED")


class RefusedInputError(ValueError):
    """What the caller sent cannot be answered; the message names the tensor and what is allowed."""


class TritonPythonModel:
    """One instance of one engine (Triton starts a process for each)."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the engine file against its hash, load and freeze it.

        Raises:
            pb_utils.TritonModelException: the load is refused; the message says why.
        """
        parameters = {
            name: parameter["string_value"]
            for name, parameter in json.loads(args["model_config"])["parameters"].items()
        }
        folder = Path(args["model_repository"]) / args["model_version"]
        self.is_encoder = parameters["part"] == "encoder"
        self.inputs = ENCODER_INPUTS if self.is_encoder else DECODER_INPUTS
        self.outputs = ENCODER_OUTPUTS if self.is_encoder else DECODER_OUTPUTS
        self.rows = {
            name.upper(): torch.tensor(json.loads(parameters[f"{name}_rows"]), dtype=torch.int32)
            for name in ("item_cat", "user_cat")
            if self.is_encoder
        }
        torch.set_num_threads(int(parameters["intra_op_threads"]))
        path = folder / parameters["engine_file"]
        _check_hash(path, parameters["engine_sha256"])
        self.engine = _load_engine(path)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, in order; a refused request has an error of its own."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[torch.Size, ...], list[int]] = defaultdict(list)
        inputs: list[Tensors] = [[]] * len(requests)
        for index, request in enumerate(requests):
            try:
                inputs[index] = self._read(request)
                groups[tuple(tensor.shape[1:] for tensor in inputs[index])].append(index)
            except Exception as error:
                responses[index] = _error(error)
        for indices in groups.values():
            for index, response in zip(indices, self._answer([inputs[i] for i in indices])):
                responses[index] = response
        return responses

    def _read(self, request: Any) -> Tensors:
        tensors = [
            torch.utils.dlpack.from_dlpack(
                pb_utils.get_input_tensor_by_name(request, name).to_dlpack()
            )
            for name in self.inputs
        ]
        if self.is_encoder:
            self._check_encoder_input(dict(zip(self.inputs, tensors)))
        else:
            _check_decoder_input(dict(zip(self.inputs, tensors)))
        return tensors

    def _check_encoder_input(self, tensor: dict[str, torch.Tensor]) -> None:
        for name in ("ITEM_DENSE", "USER_DENSE"):
            _check_finite(name, tensor[name])
        padded = tensor["ITEM_CAT"].shape[1]
        if tensor["ITEM_DENSE"].shape[1] != padded:
            raise RefusedInputError(
                f"ITEM_CAT holds {padded} candidates, ITEM_DENSE {tensor['ITEM_DENSE'].shape[1]}"
            )
        if padded == 0:
            raise RefusedInputError("ITEM_CAT holds no candidate; allowed: at least one")
        count = tensor["COUNT"]
        if bool(((count < 1) | (count > padded)).any()):
            raise RefusedInputError(f"COUNT is {count.flatten().tolist()}; allowed: 1 to {padded}")
        for name, rows in self.rows.items():
            values = tensor[name]
            bad = (values < 0) | (values >= rows)
            if bool(bad.any()):
                column = int(bad.nonzero()[0, -1])
                raise RefusedInputError(
                    f"{name} column {column} is {int(values[bad][0])}; "
                    f"allowed: 0 to {int(rows[column]) - 1}"
                )

    def _answer(self, group: list[Tensors]) -> list[Any]:
        """Responses of requests of equal shape: one engine call, or one each where that fails."""
        sizes = [tensors[0].shape[0] for tensors in group]
        try:
            joint = [torch.cat(column) for column in zip(*group)] if len(group) > 1 else group[0]
            with torch.inference_mode():
                outputs = self.engine(*joint)
            parts = [output.contiguous().split(sizes) for output in outputs]
            return [self._response(row) for row in zip(*parts)]
        except Exception as error:
            if len(group) == 1:
                return [_error(error)]
            return [self._answer([tensors])[0] for tensors in group]

    def _response(self, tensors: tuple[torch.Tensor, ...]) -> Any:
        return pb_utils.InferenceResponse(
            output_tensors=[
                # A clone of its own: a view's DLPack capsule would carry the joint batch's strides.
                pb_utils.Tensor.from_dlpack(name, torch.utils.dlpack.to_dlpack(tensor.clone()))  # type: ignore[attr-defined]
                for name, tensor in zip(self.outputs, tensors)
            ]
        )


def _check_decoder_input(tensor: dict[str, torch.Tensor]) -> None:
    _check_finite("Z", tensor["Z"])
    if bool((tensor["PRIOR"].isnan() | (tensor["PRIOR"] == float("inf"))).any()):
        raise RefusedInputError("PRIOR holds NaN or infinity; allowed: numbers and -infinity")
    if tensor["Z"].shape[1] != tensor["PRIOR"].shape[1]:
        raise RefusedInputError(
            f"Z holds {tensor['Z'].shape[1]} candidates, PRIOR {tensor['PRIOR'].shape[1]}"
        )
    if tensor["Z"].shape[1] == 0:
        raise RefusedInputError("Z holds no candidate; allowed: at least one")
    _check_finite("TEMPERATURE", tensor["TEMPERATURE"])
    if bool((tensor["TEMPERATURE"] < 0).any()):
        raise RefusedInputError(
            f"TEMPERATURE is {float(tensor['TEMPERATURE'].min())}; allowed: 0 (greedy) or above"
        )
    if tensor["GROUP"].shape[1] != tensor["Z"].shape[1]:
        raise RefusedInputError(
            f"Z holds {tensor['Z'].shape[1]} candidates, GROUP {tensor['GROUP'].shape[1]}"
        )
    if bool((tensor["LIMIT"] < 0).any()):
        raise RefusedInputError(
            f"LIMIT holds {int(tensor['LIMIT'].min())}; allowed: k of 1 or more and w of 0 or more"
        )
    if bool(((tensor["LIMIT"][:, 1] > 0) & (tensor["LIMIT"][:, 0] < 1)).any()):
        raise RefusedInputError("LIMIT allows no item of a group; allowed: k of 1 or more")


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    if not bool(tensor.isfinite().all()):
        raise RefusedInputError(f"{name} holds NaN or infinity; allowed: finite numbers")


def _check_hash(path: Path, expected: str) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise pb_utils.TritonModelException(f"engine cannot be read: {error}") from error
    if found != expected:
        raise pb_utils.TritonModelException(
            f"engine {path.name} is not the published one: sha256 {found}, expected {expected}; "
            "publish the release again"
        )


def _load_engine(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        engine = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        # An engine that was frozen at export has lost its training flag, and needs nothing more.
        return torch.jit.freeze(engine.eval()) if hasattr(engine, "training") else engine


def _error(error: Exception) -> Any:
    if isinstance(error, RefusedInputError):
        refused = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=refused)
    # TorchScript puts its own stack before the cause; the cause is the last line.
    cause = (str(error).strip() or repr(error)).splitlines()[-1]
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"engine failed: {cause}"))

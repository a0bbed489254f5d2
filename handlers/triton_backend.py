"""The Triton python-backend model that serves one engine of a release, encoder or decoder.

Publishing copies this file into the version folder of both models as ``model.py``; the model's
configuration says which of the two it is. It needs torch and nothing else of the project, since
the server's Python sees only the model's folder.

Parameters of the configuration: ``part`` (encoder or decoder), ``engine_file``, ``engine_sha256``,
``intra_op_threads`` and ``max_candidates``; for the encoder also ``item_cat_rows`` and
``user_cat_rows``, the rows of each embedding table; for compiled packages ``engine_cpu`` and
``engine_torch``, the instruction set and the torch that they were compiled for.

Requests of equal shape are joined, checked once and answered by one engine call. Where that fails,
each half is tried alone: a refused row never spoils its neighbours, and one among 64 costs a dozen
smaller calls instead of 64. Tensors cross by DLPack, both ways: it copies nothing, and ``as_numpy``
of this backend hands over empty tensors under numpy 2.

A request is a few kilobytes, so what counts in the checks is how many operations they take, each of
them cold after the engine ran: one sum finds any NaN or infinity, a row or two of small tensors are
cheapest as Python's numbers, and only what was refused is looked at closely.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch import Tensor
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]

#: The tensors of a request, or of several joined, in the order of the engine's arguments.
Tensors = list[Tensor]

ENCODER_INPUTS = ("ITEM_CAT", "ITEM_DENSE", "USER_CAT", "USER_DENSE", "COUNT")
DECODER_INPUTS = ("Z", "PRIOR", "TEMPERATURE", "SEED", "PINNED", "GROUP", "LIMIT")
ENCODER_OUTPUTS = ("Z", "PRIOR")
DECODER_OUTPUTS = ("ORDER", "LOG_PROB", "PASSES", "RELAXED")

_FIRST_ROW = torch.zeros(1, dtype=torch.int32)


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
        self.last_row = {
            name: torch.tensor(json.loads(parameters[f"{name}_rows"]), dtype=torch.int32) - 1
            for name in ("item_cat", "user_cat")
            if self.is_encoder
        }
        self.most = int(parameters["max_candidates"])
        torch.set_num_threads(int(parameters["intra_op_threads"]))
        path = folder / parameters["engine_file"]
        _check_hash(path, parameters["engine_sha256"])
        _check_machine(path, parameters)
        self.engine = _load_engine(path)
        # Without the Python that a module's call has around it.
        self.forward = getattr(self.engine, "forward", self.engine)
        # Entered for good, since execute runs in this thread and entering costs as much as a check;
        # it ends with the object.
        self.inference_mode = torch.inference_mode()
        self.inference_mode.__enter__()
        # What was loaded stays, so no garbage collection needs to walk it amid a request.
        gc.collect()
        gc.freeze()

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, in order; a refused request has an error of its own."""
        inputs = [self._read(request) for request in requests]
        if len(inputs) == 1:
            return self._answer(inputs)
        responses: list[Any] = [None] * len(inputs)
        groups: dict[tuple[torch.Size, ...], list[int]] = defaultdict(list)
        for index, tensors in enumerate(inputs):
            groups[tuple(tensor.shape[1:] for tensor in tensors)].append(index)
        for indices in groups.values():
            for index, response in zip(indices, self._answer([inputs[i] for i in indices])):
                responses[index] = response
        return responses

    def _read(self, request: Any) -> Tensors:
        """A request's tensors; Triton has made sure that they are there."""
        given = {tensor.name(): tensor for tensor in request.inputs()}
        return [from_dlpack(given[name].to_dlpack()) for name in self.inputs]

    def _answer(self, group: list[Tensors]) -> list[Any]:
        """Responses of requests of equal shape: one engine call, or two halves where that fails."""
        try:
            joint = group[0] if len(group) == 1 else [torch.cat(column) for column in zip(*group)]
            _check_candidates(self.inputs[0], joint[0].shape[1], self.most)
            if self.is_encoder:
                self._check_encoder_input(*joint)
            else:
                _check_decoder_input(*joint)
            outputs = self.forward(*joint)
            if len(group) == 1:
                return [self._response(outputs)]
            sizes = [tensors[0].shape[0] for tensors in group]
            return [
                self._response(part)
                for part in zip(*(output.contiguous().split(sizes) for output in outputs))
            ]
        except Exception as error:
            if len(group) == 1:
                return [_error(error)]
            half = len(group) // 2
            return self._answer(group[:half]) + self._answer(group[half:])

    def _response(self, tensors: tuple[Tensor, ...]) -> Any:
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor.from_dlpack(name, to_dlpack(tensor.contiguous()))
                for name, tensor in zip(self.outputs, tensors)
            ]
        )

    def _check_encoder_input(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> None:
        _check_finite("ITEM_DENSE", item_dense)
        if not all(map(math.isfinite, chain.from_iterable(user_dense.tolist()))):
            _check_finite("USER_DENSE", user_dense)
        padded = item_cat.shape[1]
        if item_dense.shape[1] != padded:
            raise RefusedInputError(
                f"ITEM_CAT holds {padded} candidates, ITEM_DENSE {item_dense.shape[1]}"
            )
        counts = [row[0] for row in count.tolist()]
        if min(counts) < 1 or max(counts) > padded:
            raise RefusedInputError(f"COUNT is {counts}; allowed: 1 to {padded}")
        _check_rows("ITEM_CAT", item_cat, self.last_row["item_cat"])
        _check_rows("USER_CAT", user_cat, self.last_row["user_cat"])


def _check_candidates(name: str, padded: int, most: int) -> None:
    if not 1 <= padded <= most:
        raise RefusedInputError(f"{name} holds {padded} candidates; allowed: 1 to {most}")


def _check_decoder_input(
    z: Tensor,
    prior: Tensor,
    temperature: Tensor,
    seed: Tensor,
    pinned: Tensor,
    group: Tensor,
    limit: Tensor,
) -> None:
    _check_finite("Z", z)
    padded = z.shape[1]
    if prior.shape[1] != padded:
        raise RefusedInputError(f"Z holds {padded} candidates, PRIOR {prior.shape[1]}")
    if group.shape[1] != padded:
        raise RefusedInputError(f"Z holds {padded} candidates, GROUP {group.shape[1]}")
    if not prior.sum().item() < math.inf and not (prior < math.inf).all():  # NaN is not below
        raise RefusedInputError("PRIOR holds NaN or infinity; allowed: numbers and -infinity")
    for (value,) in temperature.tolist():
        if not 0 <= value < math.inf:
            _check_finite("TEMPERATURE", temperature)
            raise RefusedInputError(f"TEMPERATURE is {value}; allowed: 0 (greedy) or above")
    for most, window in limit.tolist():
        if most < 0 or window < 0:
            raise RefusedInputError(
                f"LIMIT holds {min(most, window)}; allowed: k of 1 or more and w of 0 or more"
            )
        if window and not most:
            raise RefusedInputError("LIMIT allows no item of a group; allowed: k of 1 or more")


def _check_finite(name: str, values: Tensor) -> None:
    # A sum of finite numbers may overflow; then they are looked at one by one.
    if not math.isfinite(values.sum().item()) and not values.isfinite().all():
        raise RefusedInputError(f"{name} holds NaN or infinity; allowed: finite numbers")


def _check_rows(name: str, values: Tensor, last: Tensor) -> None:
    within = values.clamp(_FIRST_ROW, last)
    if not torch.equal(within, values):
        place = (within != values).nonzero()[0].tolist()
        column = place[-1]
        raise RefusedInputError(
            f"{name} column {column} is {int(values[tuple(place)])}; "
            f"allowed: 0 to {int(last[column])}"
        )


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


def _check_machine(path: Path, parameters: dict[str, str]) -> None:
    """Compiled code that meets another CPU would end this process, another torch is undefined."""
    here = {"cpu": torch.backends.cpu.get_cpu_capability(), "torch": str(torch.__version__)}
    for name, found in here.items():
        built = parameters.get(f"engine_{name}", found)
        if built.partition("+")[0] != found.partition("+")[0]:
            raise pb_utils.TritonModelException(
                f"engine {path.name} was compiled for {name} {built}, this machine has {found}; "
                "export the release again for it, or serve it where it fits"
            )


def _load_engine(path: Path) -> Any:
    if path.suffix == ".pt2":
        return _Package(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        engine = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        # An engine that was frozen at export has lost its training flag, and needs nothing more.
        return torch.jit.freeze(engine.eval()) if hasattr(engine, "training") else engine


class _Package:
    """An AOTInductor package. torch's own wrapper would import the compiler, and cost each call."""

    def __init__(self, path: Path) -> None:
        loader = torch._C._aoti.AOTIModelPackageLoader  # type: ignore[attr-defined]
        try:
            # What is unpacked goes at once, as loaded code needs no file: torch removes it at the
            # end of the process, and one that was killed would leave it for good.
            with TemporaryDirectory(prefix="aotinductor_") as unpacked, _unpacking_in(unpacked):
                # The name within the package, one thread or more, runners, device.
                self.loader = loader(str(path), "model", False, 1, -1)
        except (OSError, RuntimeError) as error:
            raise pb_utils.TritonModelException(
                f"{path.name} cannot be loaded: {error}; it is unpacked below {gettempdir()} "
                "(TMPDIR), which must be writable and not mounted noexec"
            ) from error

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        outputs: Tensors = self.loader.boxed_run(list(inputs))
        return outputs


@contextmanager
def _unpacking_in(temporary: str) -> Iterator[None]:
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = temporary
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def _error(error: Exception) -> Any:
    if isinstance(error, RefusedInputError):
        refused = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=refused)
    # TorchScript puts its own stack before the cause; the cause is the last line.
    cause = (str(error).strip() or repr(error)).splitlines()[-1]
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"engine failed: {cause}"))

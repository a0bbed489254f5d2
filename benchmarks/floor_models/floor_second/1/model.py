"""The decoder's place in the floor: tensors in and out, and nothing between."""

from __future__ import annotations

from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]

LIST_SIZE = 10


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        torch.set_num_threads(1)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(request, "Z")
        rows = from_dlpack(tensor.to_dlpack()).shape[0]
        outputs = {
            "ORDER": torch.zeros(rows, LIST_SIZE, dtype=torch.int32),
            "LOG_PROB": torch.zeros(rows, LIST_SIZE),
            "PASSES": torch.zeros(rows, 1, dtype=torch.int32),
        }
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor.from_dlpack(name, to_dlpack(out)) for name, out in outputs.items()]
        )

"""The encoder's place in the floor: tensors in and out, and nothing between."""

from __future__ import annotations

from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]

WIDTH = 64


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        torch.set_num_threads(1)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(request, "ITEM_CAT")
        rows, candidates = from_dlpack(tensor.to_dlpack()).shape[:2]
        z_BMD, prior_BM = torch.zeros(rows, candidates, WIDTH), torch.zeros(rows, candidates)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor.from_dlpack("Z", to_dlpack(z_BMD)),
                pb_utils.Tensor.from_dlpack("PRIOR", to_dlpack(prior_BM)),
            ]
        )

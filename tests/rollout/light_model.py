"""Either engine of a release for tests of the rollout, without torch: it loads in a moment.

Triton runs it as it runs ``handlers/triton_backend.py``. The list it makes is the given order from
an offset on, which depends on the release, so that an answer tells who gave it.
"""

from __future__ import annotations

import json
import re

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.release = re.search(r"r[0-9]{4,}", args["model_name"]).group()
        self.outputs = {one["name"]: one["dims"] for one in config["output"]}

    def execute(self, requests: list) -> list:
        return [self.answer(request) for request in requests]

    def answer(self, request: object) -> object:
        given = {tensor.name(): np.from_dlpack(tensor) for tensor in request.inputs()}
        made = self.encode(given) if "COUNT" in given else self.decode(given)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor.from_dlpack(name, made[name]) for name in self.outputs]
        )

    def encode(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows, padded = given["ITEM_CAT"].shape[:2]
        real = np.arange(padded)[None, :] < given["COUNT"]
        width = self.outputs["Z"][-1]
        return {
            "Z": np.zeros((rows, padded, width), np.float32),
            "PRIOR": np.where(real, 0.0, -1e9).astype(np.float32),
        }

    def decode(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows, list_size = len(given["PRIOR"]), self.outputs["ORDER"][0]
        order = np.full((rows, list_size), -1, np.int32)
        for row, prior in enumerate(given["PRIOR"]):
            # tests/rollout/light_releases.py, list_of: this file stands alone inside Triton
            count = int((prior > -1e8).sum())
            length = min(count, list_size)
            order[row, :length] = (int(self.release[1:]) + np.arange(length)) % max(1, count)
        return {
            "ORDER": order,
            "LOG_PROB": np.where(order < 0, 0.0, -1.0).astype(np.float32),
            "PASSES": np.ones((rows, 1), np.int32),
            "RELAXED": np.zeros((rows, 2), np.int32),
        }

"""TensorRT plans of the ONNX graphs, with or without a GPU at hand.

With a GPU, ``tensorrt`` builds for it, best inside the container that will serve. Without one,
``tensorrt-rtx`` builds for a named compute capability (it knows 7.5, 8.0, 8.6, 8.9, 12.0, 12.1).
A plan runs on the capability and the version that built it and nowhere else: both go into the
release's manifest.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from contracts.features import FeatureSpec
from contracts.reading import ContractError, Strict
from training.engines.onnx_graph import Precision

#: Requests of the shapes that a plan is tuned for.
TUNED_BATCH, TUNED_CANDIDATES = 8, 32


class PlanSettings(Strict, kw_only=True, frozen=True):
    """How plans are built.

    Attributes:
        precision: of matrix products and attention; scores, masks and choices stay in fp32.
        compute_capability: "8.9" and so on; None is the GPU of this machine.
        max_batch: rows of one call.
        container: tag of the container that serves, e.g. "26.07-py3"; recorded, and checked
            before loading.
    """

    precision: Precision = "fp32"
    compute_capability: str | None = None
    max_batch: int = 64
    container: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= 1024:
            raise ValueError(f"max_batch is {self.max_batch}; allowed: 1 to 1024")


def this_gpu() -> str | None:
    """The compute capability of this machine's first GPU, e.g. "9.0"; None without one."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}.{minor}"


class PlanBuilder:
    """TensorRT's builder for one target."""

    def __init__(self, settings: PlanSettings) -> None:
        """Find the library that can build for the target.

        Raises:
            ContractError: neither library is installed, or the one that is cannot build for it.
        """
        here = this_gpu()
        target = settings.compute_capability or here
        if target is None:
            raise ContractError(
                "no GPU here to build a plan for; name a target, e.g. --compute-capability 8.9"
            )
        self.settings = settings
        self.compute_capability = target
        self.library = "tensorrt" if target == here else "tensorrt_rtx"
        try:
            self._trt: Any = importlib.import_module(self.library)
        except ImportError as error:
            package = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13"}[self.library]
            raise ContractError(
                f"building a plan for compute capability {target} needs {package}, which is not "
                f"installed ({error}); pip install {package}"
            ) from error
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)
        self.versions = {self.library: str(self._trt.__version__), "torch": str(torch.__version__)}
        if self.library == "tensorrt_rtx":
            self._named_target()

    def build(self, graph: bytes, spec: FeatureSpec) -> bytes:
        """The plan of a graph, for 1 to ``max_batch`` rows and every candidate bucket.

        Raises:
            ContractError: the parser or the builder refuses the graph; with their words.
        """
        trt = self._trt
        builder = trt.Builder(self._logger)
        network = builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(graph):
            errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise ContractError(f"TensorRT cannot read the graph: {errors}")
        config = builder.create_builder_config()
        if self.library == "tensorrt_rtx":
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._named_target(), 0)
        profile = builder.create_optimization_profile()
        buckets = spec.candidate_buckets
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            shapes = [
                _shape(tuple(tensor.shape), batch, candidates)
                for batch, candidates in (
                    (1, min(buckets)),
                    (
                        min(TUNED_BATCH, self.settings.max_batch),
                        min(max(TUNED_CANDIDATES, min(buckets)), max(buckets)),
                    ),
                    (self.settings.max_batch, max(buckets)),
                )
            ]
            profile.set_shape(tensor.name, *shapes)
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ContractError(
                f"{self.library} {trt.__version__} could not build a plan for compute capability "
                f"{self.compute_capability}; its log above says why"
            )
        return bytes(plan)

    def _network_flags(self) -> int:
        # Types are those of the graph (casts for fp16 and bf16 are in it), where there is a choice.
        flags = getattr(self._trt, "NetworkDefinitionCreationFlag", None)
        strongly = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if strongly is None else 1 << int(strongly)

    def _named_target(self) -> Any:
        name = "SM" + self.compute_capability.replace(".", "")
        known = self._trt.ComputeCapability
        target = getattr(known, name, None)
        if target is None:
            allowed = sorted(one for one in dir(known) if one.startswith("SM"))
            raise ContractError(
                f"compute capability {self.compute_capability}: {self.library} "
                f"{self._trt.__version__} does not build for it; allowed: {', '.join(allowed)}. "
                "Build on a machine with that GPU instead"
            )
        return target


def _shape(shape: tuple[int, ...], batch: int, candidates: int) -> tuple[int, ...]:
    """Dynamic axes filled in: the first is the batch, any other the candidates."""
    return tuple(
        size if size >= 0 else batch if axis == 0 else candidates for axis, size in enumerate(shape)
    )

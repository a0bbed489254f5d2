"""TensorRT plans of the ONNX graphs, with or without a GPU at hand.

With a GPU, ``tensorrt`` builds for it, best inside the container that will serve. Without one,
``tensorrt-rtx`` builds for a named compute capability (it knows 7.5, 8.0, 8.6, 8.9, 12.0, 12.1).
A plan runs on the capability, the library and the version that built it and nowhere else: they go
into the release's manifest. Triton's TensorRT backend loads plans of ``tensorrt`` alone; those of
``tensorrt-rtx`` show that the graphs build for a target, and run where that library is.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from training.engines.formats import EngineSettings

#: Requests of the shapes that a plan is tuned for.
TUNED_BATCH, TUNED_CANDIDATES = 8, 32


def this_gpu() -> str | None:
    """The compute capability of this machine's first GPU, e.g. "9.0"; None without one."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}.{minor}"


class PlanBuilder:
    """TensorRT's builder for one target."""

    def __init__(self, settings: EngineSettings) -> None:
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
            self.trt: Any = importlib.import_module(self.library)
        except ImportError as error:
            package = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13"}[self.library]
            raise ContractError(
                f"building a plan for compute capability {target} needs {package}, which is not "
                f"installed ({error}); pip install {package}"
            ) from error
        self._logger = self.trt.Logger(self.trt.Logger.ERROR)
        self.versions = {self.library: str(self.trt.__version__), "torch": str(torch.__version__)}
        if self.library == "tensorrt_rtx":
            self._named_target()

    def build(self, graph: bytes, spec: FeatureSpec) -> bytes:
        """The plan of a graph, for 1 to ``max_batch`` rows and every candidate bucket.

        Raises:
            ContractError: the parser or the builder refuses the graph; with their words.
        """
        trt = self.trt
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
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            shapes = plan_shapes(tuple(tensor.shape), spec, self.settings.max_batch)
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
        flags = getattr(self.trt, "NetworkDefinitionCreationFlag", None)
        strongly = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if strongly is None else 1 << int(strongly)

    def _named_target(self) -> Any:
        name = "SM" + self.compute_capability.replace(".", "")
        known = self.trt.ComputeCapability
        target = getattr(known, name, None)
        if target is None:
            allowed = sorted(one for one in dir(known) if one.startswith("SM"))
            raise ContractError(
                f"compute capability {self.compute_capability}: {self.library} "
                f"{self.trt.__version__} does not build for it; allowed: {', '.join(allowed)}. "
                "Build on a machine with that GPU instead"
            )
        return target


def plan_shapes(shape: tuple[int, ...], spec: FeatureSpec, max_batch: int) -> list[tuple[int, ...]]:
    """Least, tuned and largest shape of an input whose dynamic axes are -1.

    The first axis is the batch, any other dynamic one the candidates.
    """
    least, most = min(spec.candidate_buckets), max(spec.candidate_buckets)
    tuned = min(TUNED_BATCH, max_batch), min(max(TUNED_CANDIDATES, least), most)
    return [
        tuple(
            size if size >= 0 else batch if axis == 0 else candidates
            for axis, size in enumerate(shape)
        )
        for batch, candidates in ((1, least), tuned, (max_batch, most))
    ]

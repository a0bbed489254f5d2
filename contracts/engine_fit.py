"""Do a release's engines run on a serving machine? What must be equal, and what must be there.

A TensorRT plan or an AOTInductor package that meets another GPU or another version fails to load
at best, and answers wrongly at worst. So it is compared before, and refused with both values.
"""

from __future__ import annotations

from collections.abc import Iterator

from contracts.reading import ContractError, Strict
from contracts.releases import Engine, ReleaseManifest

#: The least compute capability whose units compute in a precision.
_LEAST = {"fp16": (5, 3), "bf16": (8, 0), "int8": (6, 1)}
#: Names of libraries in ``Engine.versions`` that read what they built and nothing else.
_READERS = ("tensorrt", "tensorrt_rtx")


class ServingMachine(Strict, kw_only=True, frozen=True):
    """What a server is; None is not known.

    Attributes:
        backends: Triton's backends that it has.
        compute_capability: of its GPU, e.g. "8.9"; "none" without a GPU.
        cpu: instruction set of its CPU as torch names it, e.g. "AVX2".
        container: tag or release of its container: "26.07-py3", "26.07".
        tensorrt: version of TensorRT.
        torch: version of torch that Triton's python backend imports.
    """

    backends: tuple[str, ...] | None = None
    compute_capability: str | None = None
    cpu: str | None = None
    container: str | None = None
    tensorrt: str | None = None
    torch: str | None = None


class EngineMismatchError(ContractError):
    """A release's engines do not run on the serving machine."""


def needs_machine(manifest: ReleaseManifest) -> bool:
    """Whether anything of the machine matters: TorchScript of profile ``cpu`` runs on all."""
    return manifest.profile != "cpu" or any("cpu" in one.versions for one in manifest.engines)


def check_engines_fit(manifest: ReleaseManifest, here: ServingMachine) -> None:
    """Compare a release's engines with the machine that is to serve them.

    Raises:
        EngineMismatchError: they do not fit, or what must be equal is not known; both values, and
            what to do.
    """
    needed = {engine.backend for engine in manifest.engines}
    if here.backends is not None and (lacking := sorted(needed - set(here.backends))):
        raise EngineMismatchError(
            f"{manifest.name}: profile {manifest.profile} needs Triton's {' and '.join(lacking)} "
            f"backend; this Triton has {', '.join(here.backends) or 'none'}. Serve it in the "
            f"container{_tag(manifest)}, or publish TorchScript engines with profile cpu"
        )
    if manifest.profile == "gpu" and here.compute_capability == "none":
        raise EngineMismatchError(
            f"{manifest.name}: profile gpu needs a GPU; this machine has none; publish the engines "
            "with profile cpu, or, where another machine serves, say --compute-capability"
        )
    for engine in manifest.engines:
        for what, built, found, option in _wants(manifest, engine, here):
            if built != found:
                told = "it is not known here" if found is None else f"this machine has {found}"
                raise EngineMismatchError(
                    f"{manifest.name}: the {engine.part} engine was built for {what} {built}, "
                    f"{told}; export again for it, or, where another machine serves, "
                    f"say what that has with {option}"
                )
        _check_precision(manifest, engine, here)


def _wants(
    manifest: ReleaseManifest, engine: Engine, here: ServingMachine
) -> Iterator[tuple[str, str, str | None, str]]:
    """What must be equal: its name, the value at building, the value here, the option to say it."""
    if not needs_machine(manifest):
        return
    if engine.compute_capability is not None:
        yield (
            "compute capability",
            engine.compute_capability,
            here.compute_capability,
            "--compute-capability",
        )
    if "cpu" in engine.versions:
        yield "a CPU with", engine.versions["cpu"], here.cpu, "--cpu"
    if engine.format == "aotinductor" and engine.backend == "python" and "torch" in engine.versions:
        found = None if here.torch is None else public_version(here.torch)
        yield "torch", public_version(engine.versions["torch"]), found, "--torch"
    reader = next((name for name in _READERS if name in engine.versions), None)
    if reader is not None:
        found = None if here.tensorrt is None else f"tensorrt {_release(here.tensorrt)}"
        built = f"{reader} {_release(engine.versions[reader])}"
        yield "version", built, found, "--tensorrt"
    if engine.container is not None:
        found = None if here.container is None else _yymm(here.container)
        yield "container", _yymm(engine.container), found, "--container"


def _check_precision(manifest: ReleaseManifest, engine: Engine, here: ServingMachine) -> None:
    least = _LEAST.get(engine.precision)
    if least is None or here.compute_capability in (None, "none"):
        return
    assert here.compute_capability is not None
    if tuple(map(int, here.compute_capability.split("."))) < least:
        raise EngineMismatchError(
            f"{manifest.name}: the {engine.part} engine computes in {engine.precision}, which "
            f"needs compute capability {least[0]}.{least[1]}; this machine has "
            f"{here.compute_capability}"
        )


def _tag(manifest: ReleaseManifest) -> str:
    tags = [engine.container for engine in manifest.engines if engine.container]
    return f" nvcr.io/nvidia/tritonserver:{tags[0]}" if tags else ""


def _yymm(container: str) -> str:
    """26.07 of 26.07-py3: the variants of a release hold the same libraries."""
    return container.partition("-")[0]


def public_version(version: str) -> str:
    """2.13.0 of 2.13.0+cpu: what follows says for which accelerator it was built."""
    return version.partition("+")[0]


def _release(version: str) -> str:
    """The first three numbers: the fourth is the build, which containers name differently."""
    return ".".join(version.split(".")[:3])

"""A release meets a serving machine: what must be equal, and what is said where it is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from contracts.engine_fit import EngineMismatchError, ServingMachine, check_engines_fit
from contracts.releases import DataVersion, Engine, Parents, ReleaseManifest

BACKENDS = {"cpu": "python", "gpu": "pytorch", "tensorrt": "tensorrt", "aoti": "pytorch"}
FORMATS = {"cpu": "torchscript", "gpu": "torchscript", "tensorrt": "tensorrt"}
ALL = ("python", "pytorch", "tensorrt")
#: The machine that the engines of `release` were built for.
FITTING = ServingMachine(
    backends=ALL,
    compute_capability="8.9",
    cpu="AVX2",
    container="26.07",
    tensorrt="10.13.2.6",
    torch="2.13.0+cpu",
)
#: An AOTInductor package of profile cpu.
PACKAGE = {"format": "aotinductor", "versions": {"torch": "2.13.0", "cpu": "AVX2"}}


def release(profile: str, **changes: Any) -> ReleaseManifest:
    fields: dict[str, Any] = {
        "format": FORMATS.get(profile, "aotinductor"),
        "precision": "fp32",
        "backend": BACKENDS[profile],
        "versions": {"torch": "2.13.0"},
    }
    if profile == "tensorrt":
        fields["versions"] = {"torch": "2.13.0", "tensorrt": "10.13.2"}
        fields |= {"compute_capability": "8.9", "container": "26.07-py3"}
    if profile == "aoti":
        fields["versions"] = {"torch": "2.13.0", "cpu": "AVX2"}
    engines = [
        Engine(part=part, file=part, **{**fields, **changes}) for part in ("encoder", "decoder")
    ]
    return ReleaseManifest(
        name="r0007",
        created="2026-01-02T03:04:05+00:00",
        parents=Parents(),
        data=DataVersion(dataset="toy", fingerprint="0"),
        feature_spec_sha256="0",
        list_size=3,
        heads=2,
        profile=profile,  # type: ignore[arg-type]
        settings={},
        gates=(),
        engines=tuple(engines),
        files={"encoder": "0", "decoder": "0"},
    )


@pytest.mark.parametrize("profile", BACKENDS)
def test_a_machine_that_the_engines_were_built_for(profile: str) -> None:
    check_engines_fit(release(profile), FITTING)


@pytest.mark.parametrize(
    ("profile", "changes", "here", "told"),
    [
        ("cpu", PACKAGE, {"cpu": "AVX512"}, "a CPU with AVX2, this machine has AVX512"),
        ("cpu", PACKAGE, {"torch": "2.12.1+cpu"}, "torch 2.13.0, this machine has 2.12.1; .*again"),
        ("cpu", PACKAGE, {"torch": None}, "torch 2.13.0, it is not known here; .*--torch"),
        ("tensorrt", {}, {"compute_capability": "9.0"}, "capability 8.9, this machine has 9.0"),
        ("tensorrt", {}, {"compute_capability": "none"}, "capability 8.9, this machine has none"),
        ("tensorrt", {}, {"compute_capability": None}, "not known here.*--compute-capability"),
        ("tensorrt", {}, {"tensorrt": "10.14.0"}, "tensorrt 10.13.2, .* tensorrt 10.14.0"),
        ("tensorrt", {}, {"tensorrt": None}, "version tensorrt 10.13.2, .*not known.*--tensorrt"),
        ("tensorrt", {}, {"container": "26.08-py3"}, "container 26.07, this machine has 26.08"),
        ("tensorrt", {}, {"container": None}, "not known here.*--container"),
        (
            "tensorrt",
            {"versions": {"tensorrt_rtx": "1.7.1"}},
            {"tensorrt": "1.7.1"},
            "tensorrt_rtx 1.7.1, this machine has tensorrt 1.7.1",
        ),
        (
            "tensorrt",
            {"precision": "bf16", "compute_capability": "7.5"},
            {"compute_capability": "7.5"},
            "bf16, which needs compute capability 8.0; this machine has 7.5",
        ),
        ("tensorrt", {}, {"backends": ("python",)}, r"tensorrt backend; this Triton has python"),
        ("gpu", {}, {"backends": ("python",)}, r"profile gpu needs Triton's pytorch backend"),
        ("gpu", {}, {"compute_capability": "none"}, r"needs a GPU; this machine has none"),
        ("aoti", {}, {"cpu": "AVX512"}, "CPU with AVX2, this machine has AVX512"),
        ("aoti", {"compute_capability": "8.9"}, {"compute_capability": "8.0"}, "8.9.*has 8.0"),
    ],
)
def test_a_mismatch_is_refused_with_both_values(
    profile: str, changes: dict[str, Any], here: dict[str, Any], told: str
) -> None:
    machine = msgspec.structs.replace(FITTING, **here)
    with pytest.raises(EngineMismatchError, match=told):
        check_engines_fit(release(profile, **changes), machine)


def test_variants_and_builds_of_the_same_release_fit() -> None:
    machine = msgspec.structs.replace(FITTING, container="26.07-trtllm-py3", tensorrt="10.13.2")
    check_engines_fit(release("tensorrt"), machine)


def test_engines_of_profile_cpu_ask_for_nothing_but_their_backend() -> None:
    check_engines_fit(release("cpu"), ServingMachine())
    check_engines_fit(release("cpu", **PACKAGE), FITTING)
    with pytest.raises(EngineMismatchError, match="python backend; this Triton has none"):
        check_engines_fit(release("cpu"), ServingMachine(backends=()))

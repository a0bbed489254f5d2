"""What the machine is that is to serve engines: asked of itself, or said by the operator."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import msgspec

from contracts.engine_fit import ServingMachine
from contracts.reading import ContractError

#: Variables of NVIDIA's containers.
CONTAINER, TENSORRT = "NVIDIA_TRITON_SERVER_VERSION", "TRT_VERSION"


def this_machine(
    environment: Mapping[str, str] | None = None, **said: str | tuple[str, ...] | None
) -> ServingMachine:
    """This machine, by nvidia-smi and the variables of NVIDIA's containers.

    Args:
        environment: in place of the process's.
        said: fields of ServingMachine in place of what is found, for a repository that another
            machine serves; None leaves what is found.

    Raises:
        ContractError: it has GPUs of different kinds, and none was said.
    """
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in said.items() if value is not None}
    found = ServingMachine(
        compute_capability=None if "compute_capability" in given else _compute_capability(),
        cpu=None if "cpu" in given else _cpu(),
        container=environment.get(CONTAINER),
        tensorrt=environment.get(TENSORRT),
        torch=None if "torch" in given else _torch(),
    )
    return msgspec.structs.replace(found, **given)


def _compute_capability() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none"
    command = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    kinds = sorted({line.strip() for line in done.stdout.splitlines() if line.strip()})
    if done.returncode or not kinds:
        return "none"
    if len(kinds) > 1:
        raise ContractError(
            f"GPUs of compute capability {', '.join(kinds)} are here, and an engine runs on one "
            "kind; hide the others (CUDA_VISIBLE_DEVICES for Triton) and say --compute-capability"
        )
    return kinds[0]


def _cpu() -> str | None:
    try:
        import torch
    except ImportError:  # a machine that only installs releases
        return None
    return str(torch.backends.cpu.get_cpu_capability())


def _torch() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None

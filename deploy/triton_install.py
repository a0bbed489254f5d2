"""Where the Triton of the local stack comes from: a wheel installed aside, or one already there.

The wheel pins packages that the project does not want (numpy below 2), so it never enters the
project's environment: it is unpacked into a folder of its own and only its server is used.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from contracts.locking import one_at_a_time

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
WHEEL_FOLDER = ROOT / ".local" / "triton"
PACKAGE = "nvidia-pytriton"
_STUB = "triton_python_backend_stub"


class StackError(RuntimeError):
    """The local stack cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True)
class TritonFiles:
    """A Triton on this machine.

    Attributes:
        binary: tritonserver.
        python_backend: folder of libtriton_python.so and its utilities.
        stub: the python backend's stub for this Python version.
        libraries: what the binary and the stub need on LD_LIBRARY_PATH, if anything.
    """

    binary: Path
    python_backend: Path
    stub: Path
    libraries: Path | None


def find_triton(given: Path | None = None) -> TritonFiles:
    """The Triton at ``given``, or the wheel's, installed on first use.

    Args:
        given: a tritonserver binary (of a container or package: backends lie in ``../backends``),
            or a folder into which the wheel was installed with ``pip --target``.

    Raises:
        StackError: nothing usable is there, or the installation failed.
    """
    if given is None:
        return _wheel_files(install_wheel())
    if given.is_dir():
        return _wheel_files(given)
    backend = given.resolve().parent.parent / "backends" / "python"
    return _checked(TritonFiles(given, backend, backend / _STUB, None))


def install_wheel(folder: Path = WHEEL_FOLDER, constraints: Path = CONSTRAINTS) -> Path:
    """Install the pinned wheel into ``folder`` unless it is there already; safe to run again.

    The folder appears by one rename of a complete installation, so one that was interrupted
    leaves nothing that looks like Triton.
    """
    if folder.is_dir():
        return folder
    with one_at_a_time(folder.with_suffix(".lock")):
        if folder.is_dir():
            return folder
        requirement = f"{PACKAGE}=={pinned_version(constraints)}"
        staging = Path(tempfile.mkdtemp(prefix=".triton-", dir=folder.parent))
        try:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            command += ["--disable-pip-version-check", "--target", str(staging), requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise StackError(
                    f"{requirement} could not be installed into {folder}: "
                    f"{done.stderr.strip()[-2000:]}; try again, or name a Triton with --triton"
                )
            staging.chmod(0o755)
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folder


def pinned_version(constraints: Path = CONSTRAINTS) -> str:
    """The wheel's version in constraints.txt."""
    try:
        text = constraints.read_text(encoding="utf-8")
    except OSError as error:
        raise StackError(f"{constraints}: cannot be read: {error}") from error
    found = re.search(rf"^{PACKAGE}==(\S+)", text, re.MULTILINE)
    if not found:
        raise StackError(f"{constraints}: holds no line {PACKAGE}==VERSION; add one")
    return found.group(1)


def assemble_backends(files: TritonFiles, folder: Path) -> Path:
    """A backend directory (``folder``/python) with the stub of this Python version; idempotent."""
    done = folder / "python"
    if done.is_dir() and _same_file(done / _STUB, files.stub):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".python-", dir=folder))
    for source in (*files.python_backend.iterdir(), files.stub):
        if source.is_file():
            shutil.copy2(source, staging / source.name)
    shutil.rmtree(done, ignore_errors=True)
    staging.chmod(0o755)
    staging.rename(done)
    return folder


def server_environment(files: TritonFiles) -> dict[str, str]:
    """Environment of the server: the stub imports torch from the Python that runs this."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")
    }
    environment["PATH"] = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
    # A __pycache__ beside a model.py looks like a change of the model to Triton.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    if files.libraries:
        environment["LD_LIBRARY_PATH"] = str(files.libraries)
    return environment


def _wheel_files(folder: Path) -> TritonFiles:
    server = folder / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return _checked(
        TritonFiles(
            binary=server / "bin" / "tritonserver",
            python_backend=server / "backends" / "python",
            stub=server / "python_backend_stubs" / version / _STUB,
            libraries=folder / "nvidia_pytriton.libs",
        )
    )


def _checked(files: TritonFiles) -> TritonFiles:
    for path in (files.binary, files.python_backend / "libtriton_python.so", files.stub):
        if not path.exists():
            raise StackError(
                f"{path}: no such file, so there is no usable Triton; "
                "delete its folder to install it again, or name another with --triton"
            )
    return files


def _same_file(one: Path, two: Path) -> bool:
    try:
        a, b = one.stat(), two.stat()
    except OSError:
        return False
    return (a.st_size, int(a.st_mtime)) == (b.st_size, int(b.st_mtime))

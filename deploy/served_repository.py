"""The flat folder that the local Triton serves from: a link for each model of a release.

A refresh with ``--repository`` copies instead (``training/release/installing.py``); such copies are
taken as they are.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from contracts.engine_fit import ServingMachine, check_engines_fit
from contracts.reading import ContractError
from contracts.releases import RELEASE_NAME, ReleaseManifest, verify_release
from deploy.triton_install import StackError

#: What the local Triton is, for engines that ask; it has no GPU and this one backend.
LOCAL_TRITON = ServingMachine(backends=("python",), compute_capability="none")


def ensemble_of(release: str) -> str:
    """The model that clients call; it brings the others along."""
    return f"gref_{release}"


def models_of(release: str, repository: Path) -> tuple[str, ...]:
    """The release's models in a repository, the ensemble last."""
    ensemble = ensemble_of(release)
    return (*sorted(path.name for path in repository.glob(f"{ensemble}_*")), ensemble)


def add_release(folder: Path, repository: Path) -> str:
    """Verify a release and link its models into the served repository; idempotent.

    Links rather than copies: a release never changes, and the python backend checks the engine's
    hash once more when it loads.

    Returns:
        The release's name.

    Raises:
        StackError: the release is not what its manifest says, its engines do not run on a CPU by
            the python backend, or another folder of the same name
            is already served.
    """
    try:
        manifest = verify_release(folder)
        check_engines_fit(manifest, local_triton(manifest))
    except ContractError as error:
        raise StackError(str(error)) from error
    repository.mkdir(parents=True, exist_ok=True)
    names = models_of(manifest.name, folder / "repository")
    models = [repository / model for model in names]
    if any(path.is_dir() and not path.is_symlink() for path in models):
        return _complete_copies(folder, repository)
    for model in names:
        add_model(folder / "repository" / model, repository)
    return manifest.name


def local_triton(manifest: ReleaseManifest) -> ServingMachine:
    """What engines of this release want to know of it: for compiled code, CPU and torch."""
    if all("cpu" not in engine.versions for engine in manifest.engines):
        return LOCAL_TRITON
    from training.release.serving_machine import this_machine  # it brings torch along

    here = this_machine(compute_capability=LOCAL_TRITON.compute_capability)
    return msgspec.structs.replace(LOCAL_TRITON, cpu=here.cpu, torch=here.torch)


def _complete_copies(folder: Path, repository: Path) -> str:
    from training.release.installing import install  # it brings torch along
    from training.release.release_names import PublishError

    try:
        install(folder, repository)
    except (ContractError, PublishError) as error:
        raise StackError(str(error)) from error
    return folder.name


def add_model(folder: Path, repository: Path) -> None:
    """Link one model folder into the served repository; idempotent."""
    target, link = folder.resolve(), repository / folder.name
    if not (target / "config.pbtxt").is_file():
        raise StackError(f"{target}: holds no config.pbtxt")
    if link.is_symlink() and link.resolve() != target and link.exists():
        raise StackError(
            f"{folder.name} is served from {link.resolve()}, not from {target}: "
            "two releases of one name; stop the stack first (python deploy/local.py down)"
        )
    staging = repository / f".{folder.name}.{os.getpid()}"
    staging.unlink(missing_ok=True)
    staging.symlink_to(target, target_is_directory=True)
    staging.replace(link)


def newest_release(releases: Path) -> Path:
    """The release with the highest number in a folder of releases."""
    names = [path.name for path in releases.glob("r*") if RELEASE_NAME.match(path.name)]
    if not names:
        raise StackError(f"{releases}: holds no release; publish one (training/publish.py)")
    return releases / max(names, key=lambda name: int(name[1:]))

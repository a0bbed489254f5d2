"""Copying a release's models into the repository that a Triton serves from, and taking them out.

Each of the three folders is built aside under a name with a dot, checked against the manifest, made
durable and renamed; the ensemble, by which clients know a release, comes last and goes first. So a
Triton that is told to load it finds all of it or nothing, whenever the copying was interrupted. The
repository needs no Triton to run, and Triton is told to load by whoever rolls out. That takes
explicit model control: in the modes ``none`` and ``poll`` Triton loads whatever folder it sees.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.reading import ContractError
from contracts.releases import RELEASE_NAME, file_sha256, verify_release
from training.release.building import PARTS, REPOSITORY
from training.release.catalog import DamagedError
from training.release.durable import fsync, fsync_tree
from training.release.release_names import PublishError, publisher_lock
from training.release.stamping import model_name

_ASIDE = ".installing-"
_REMOVING = ".removing-"


def install(release: Path, repository: Path, wait_s: float = 60.0) -> list[str]:
    """Copy a release's models into a served repository; idempotent.

    Args:
        release: the folder of a release; verified first.
        repository: the folder that Triton serves from; made if it is not there.
        wait_s: seconds to wait for another that installs there.

    Returns:
        The models that were copied, in order; none where all were there.

    Raises:
        DamagedError: the release is not what its manifest says.
        ContractError: other content is installed under its name.
        PublishError: the repository cannot be written, or another holds it for all of ``wait_s``.
    """
    try:
        manifest = verify_release(release)
    except ContractError as error:
        raise DamagedError(str(error)) from error
    expected = {part: _hashes(manifest.files, model_name(manifest.name, part)) for part in PARTS}
    if empty := [part for part in PARTS if not expected[part]]:
        raise ContractError(f"{release}: holds no {empty[0]} model; publish again")
    copied = []
    with _changing(repository, wait_s):
        models = [(model_name(manifest.name, part), expected[part]) for part in PARTS]
        missing = [(model, hashes) for model, hashes in models if not (repository / model).exists()]
        for model, hashes in models:
            if (model, hashes) not in missing:
                _check(repository / model, hashes, release)
        for model, hashes in missing:
            _copy(release / REPOSITORY / model, repository, hashes)
            copied.append(model)
    return copied


def uninstall(name: str, repository: Path, wait_s: float = 60.0) -> list[str]:
    """Take a release's models out of a served repository; idempotent.

    Unload it first: Triton keeps serving what it has loaded, but could not load it again.

    Returns:
        The models that were taken out, in order; none where none was there.

    Raises:
        ContractError: ``name`` is no release's name, or there is no such repository.
        PublishError: the repository cannot be written, or another holds it for all of ``wait_s``.
    """
    if not RELEASE_NAME.match(name):
        raise ContractError(f"{name!r} is no release; allowed: r and at least four digits (r0001)")
    if not repository.is_dir():
        raise ContractError(f"{repository}: no such repository")
    removed = []
    with _changing(repository, wait_s):
        for part in reversed(PARTS):
            model = model_name(name, part)
            path = repository / model
            if path.is_symlink():  # as the local stack has them
                path.unlink()
            elif path.exists():
                path.rename(repository / f"{_REMOVING}{model}")
            else:
                continue
            fsync(repository)
            removed.append(model)
        _remove_leftovers(repository)
    return removed


@contextmanager
def _changing(repository: Path, wait_s: float) -> Iterator[None]:
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with publisher_lock(repository, wait_s):
            _remove_leftovers(repository)
            yield
    except OSError as error:
        raise PublishError(
            f"{repository}: cannot be changed: {error}; no half of a model was left in it; "
            "make room or give write access, then run the command again"
        ) from error


def _copy(source: Path, repository: Path, expected: dict[str, str]) -> None:
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=repository))
    try:
        aside.chmod(0o755)  # mkdtemp makes it private; Triton runs as another user
        for file in expected:
            (aside / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, aside / file)
        _check(aside, expected, source)  # the copy, not what lay there when it was verified
        fsync_tree(aside)
        target = repository / source.name
        if target.is_symlink():  # to a release that is gone
            target.unlink()
        aside.rename(target)
        fsync(repository)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _check(folder: Path, expected: dict[str, str], release: Path) -> None:
    """Does a model folder hold what the release holds, and nothing else?"""
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for file in sorted(found.keys() | expected.keys()):
        if file not in found or file not in expected or file_sha256(found[file]) != expected[file]:
            raise ContractError(
                f"{folder}: {file} is not as in {release}: other content under the same name; "
                "nothing was overwritten: find out who wrote it, uninstall it "
                "(python training/releases.py uninstall), then install again"
            )


def _hashes(files: dict[str, str], model: str) -> dict[str, str]:
    """The files of a model, relative to its folder."""
    prefix = f"{REPOSITORY}/{model}/"
    return {name.removeprefix(prefix): files[name] for name in files if name.startswith(prefix)}


def _remove_leftovers(repository: Path) -> None:
    """Under the lock nobody copies, so whatever lies aside was left by a crash."""
    for prefix in (_ASIDE, _REMOVING):
        for path in repository.glob(f"{prefix}*"):
            shutil.rmtree(path)

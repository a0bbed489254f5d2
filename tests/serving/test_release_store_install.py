"""A release in the repository that Triton serves from: whole, as published, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contracts.reading import ContractError
from deploy.triton_install import StackError
from tests.serving.conftest import Served
from tests.serving.release_folders import contents, damage
from tests.serving.toy_engines import toy_request
from training.release.installing import install, uninstall
from training.release.publishing import publish
from training.release.release_names import LOCK_FILE, PublishError

pytestmark = pytest.mark.timeout(300)
MODELS = ["gref_r0001_encoder", "gref_r0001_decoder", "gref_r0001"]


@pytest.fixture
def release(toy_release: Path, tmp_path: Path) -> Path:
    """A copy of the toy release, to be damaged."""
    return Path(shutil.copytree(toy_release, tmp_path / "releases" / "r0001"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "served"


def test_copies_are_what_was_published(release: Path, repository: Path) -> None:
    assert install(release, repository) == MODELS
    found = {k: v for k, v in contents(repository).items() if k != LOCK_FILE}
    assert found == contents(release / "repository")
    assert all((repository / model).stat().st_mode & 0o777 == 0o755 for model in MODELS)
    assert install(release, repository) == []
    (repository / MODELS[0] / "1" / "__pycache__").mkdir()
    (repository / MODELS[0] / "1" / "__pycache__" / "model.pyc").touch()
    assert install(release, repository) == [], "what Python leaves is no other content"
    assert uninstall("r0001", repository) == MODELS[::-1]
    assert uninstall("r0001", repository) == []
    assert [path.name for path in repository.iterdir()] == [LOCK_FILE]


def test_what_is_missing_is_added(release: Path, repository: Path) -> None:
    install(release, repository)
    shutil.rmtree(repository / MODELS[1])
    assert install(release, repository) == [MODELS[1]]


def test_a_damaged_release_is_not_installed(release: Path, repository: Path) -> None:
    damage(release)
    with pytest.raises(ContractError, match="was altered"):
        install(release, repository)
    assert not repository.exists()


@pytest.mark.parametrize("change", ["alter", "add", "remove"])
def test_other_content_under_the_same_name(release: Path, repository: Path, change: str) -> None:
    install(release, repository)
    shutil.rmtree(repository / MODELS[0])
    file = repository / MODELS[1] / "1" / "model.pt"
    if change == "alter":
        file.write_bytes(b"other" + file.read_bytes())
    elif change == "add":
        file.with_name("other.pt").touch()
    else:
        file.unlink()
    before = contents(repository)
    with pytest.raises(ContractError, match="other content under the same name; nothing was over"):
        install(release, repository)
    assert contents(repository) == before, "not even what is missing is copied then"
    assert uninstall("r0001", repository) == MODELS[:0:-1]
    assert install(release, repository) == MODELS


def test_links_of_the_local_stack(release: Path, repository: Path) -> None:
    repository.mkdir()
    for model in MODELS:
        (repository / model).symlink_to(release / "repository" / model)
    assert install(release, repository) == [], "the same content, by a link"
    moved = release.rename(release.with_name("moved"))
    assert install(moved, repository) == MODELS, "links to a release that is gone"
    assert not (repository / MODELS[0]).is_symlink()
    shutil.rmtree(repository / MODELS[0])
    (repository / MODELS[0]).symlink_to(moved / "repository" / MODELS[0])
    uninstall("r0001", repository)
    assert (moved / "repository" / MODELS[0] / "config.pbtxt").is_file(), "the link goes alone"


def test_bad_input(release: Path, repository: Path) -> None:
    with pytest.raises(ContractError, match="no such file"):
        install(release.parent / "r0002", repository)
    for name in ("r1", "../r0001", ""):
        with pytest.raises(ContractError, match="allowed: r and at least four digits"):
            uninstall(name, repository)
    with pytest.raises(ContractError, match="no such repository"):
        uninstall("r0001", repository)
    repository.write_text("a file")
    with pytest.raises(PublishError, match=r"cannot be changed: .*give write access"):
        install(release, repository)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_copy_that_fails_half_way(
    release: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile, copied = shutil.copyfile, 0

    def full(source: Path, target: Path) -> None:
        """The fifth file meets a disk that is really full."""
        nonlocal copied
        copied += 1
        copyfile(source, "/dev/full" if copied == 5 else target)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(PublishError, match=r"No space left.*no half of a model"):
        install(release, repository)
    left = [path.name for path in repository.iterdir() if path.name != LOCK_FILE]
    assert set(left) < set(MODELS)
    monkeypatch.undo()
    assert install(release, repository) == [model for model in MODELS if model not in left]


def test_triton_serves_what_is_installed(toy_engines: Path, tmp_path: Path, served: Served) -> None:
    """And does not load what lies aside, as a killed installation leaves it."""
    publish(toy_engines, tmp_path)
    second = publish(toy_engines, tmp_path)
    stack = served.stack
    repository = stack.home.repository
    aside = repository / ".installing-x"
    shutil.copytree(second / "repository" / "gref_r0002_encoder", aside)
    try:
        assert stack.models() == sorted(MODELS), "listed, but never loaded unless asked by name"
        with pytest.raises(StackError, match="gref_r0002"):
            stack.load_model("gref_r0002")
        install(second, repository)
        assert not aside.exists()
        stack.load_model("gref_r0002")
        with served.client() as first, Served(stack, "r0002").client() as other:
            one, two = (client.rerank(toy_request(3)) for client in (first, other))
        assert two.fallback is None
        assert one.items == two.items, "the same engines under two names"
        assert stack.load(second) == "r0002", "the stack takes the copies as they are"
        assert not (repository / "gref_r0002").is_symlink()
    finally:
        stack.unload("r0002")
        assert (repository / "gref_r0002").is_dir(), "whoever installed it takes it out"
        uninstall("r0002", repository)
    assert served.release in stack.releases()

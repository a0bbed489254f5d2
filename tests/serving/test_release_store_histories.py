"""Any history of champions and prunings keeps what the store promises."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.reading import ContractError
from tests.serving.release_folders import make_release, record_text
from training.release.release_names import next_name, publisher_lock
from training.release.store import ReleaseStore

pytestmark = pytest.mark.timeout(180)
RELEASES = 4


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    for number in range(1, RELEASES + 1):
        make_release(folder, number)
    return folder


steps = st.lists(
    st.one_of(
        st.integers(1, RELEASES).map(lambda number: f"r{number:04d}"),
        st.just("rollback"),
    ),
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_champions_and_rollbacks(releases: Path, steps: list[str]) -> None:
    """The oracle is a stack of names: naming pushes, a rollback pops, and nothing else moves."""
    (releases / "champion.json").unlink(missing_ok=True)
    store = ReleaseStore(releases)
    stack: list[str] = []
    log: list[dict[str, object]] = []
    for step in steps:
        if step != "rollback":
            assert store.set_champion(step) is (stack[-1:] != [step])
            stack += [step] if stack[-1:] != [step] else []
        elif len(stack) < 2:
            before = record_text(releases) if stack else None
            with pytest.raises(ContractError):
                store.rollback()
            assert before is None or record_text(releases) == before
        else:
            stack.pop()
            assert store.rollback() == stack[-1]
        if not stack:
            continue
        assert store.champion() == stack[-1]
        assert store.record().earlier == tuple(stack[-2::-1])
        now = json.loads(record_text(releases))["changes"]
        assert now[: len(log)] == log, "what is recorded stays"
        log = now


@st.composite
def families(draw: st.DrawFn) -> dict[int, int | None]:
    """Releases with their parents; numbers have gaps, and there may be several anchors."""
    numbers = sorted(draw(st.sets(st.integers(1, 30), min_size=1, max_size=7)))
    return {
        number: draw(st.sampled_from([None, *numbers[:index]]))
        for index, number in enumerate(numbers)
    }


@settings(max_examples=40)
@given(family=families(), data=st.data())
def test_prunings(family: dict[int, int | None], data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        names = [make_release(folder, number, parent) for number, parent in family.items()]
        store = ReleaseStore(folder)
        for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=4)):
            store.set_champion(name)
        highest = names[-1]
        for _ in range(2):
            _prune_once(store, data, names, highest)
    finally:
        shutil.rmtree(folder)


def _prune_once(store: ReleaseStore, data: st.DataObject, ever: list[str], highest: str) -> None:
    before = store.names()
    champion, earlier = store.champion(), store.record().earlier
    protected = data.draw(st.sets(st.sampled_from(before), max_size=2))
    keep = data.draw(st.integers(1, 4))
    planned = store.plan_pruning(keep, protected)
    assert store.names() == before, "a plan deletes nothing"
    assert store.prune(keep, protected) == planned
    after = store.names()
    assert set(after) | set(planned.delete) == set(before)
    assert after == tuple(planned.keep)
    assert {champion, *before[-keep:], *protected} <= set(after)
    target = next((name for name in earlier if name in before), champion)
    assert target in after, "a rollback has somewhere to go"
    assert store.champion() == champion
    for name in after:
        store.verify(name)
        assert (anchor := store.lineage(name)[-1]).parent is None
        assert anchor.state == "present", "the anchor of what stays stays"
    for name in planned.delete:
        assert store.lineage(name)[0].state == "pruned"
    # What is gone was needed by nothing that is still there.
    for name in planned.delete:
        assert name not in {store.lineage(other)[-1].name for other in after}
    with publisher_lock(store.folder, 0.0) as lock:
        assert int(next_name(store.folder, lock)[1:]) == int(highest[1:]) + 1
    assert set(after) <= set(ever)

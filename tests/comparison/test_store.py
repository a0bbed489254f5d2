"""Results on disk: what is written stays, whatever happens while writing."""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

import msgspec
import pytest

from contracts.reading import ContractError
from tests.comparison.stored import case_lists, fill, lists, row
from training.comparison.store import Row, Store

CASE = row("gref", 1).case


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert store.rows() == {}
    one = row("gref", 1, scalars={"logps/chosen": -12.5}, alarm="collapse")
    store.add(one, lists(0.3), case_lists())
    assert list(store.rows().values()) == [one]
    assert (store.lists(one)["true click"] == lists(0.3)["true click"]).all()
    assert store.case_lists(one).keys() == case_lists().keys()


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_last_line_is_left_out_and_written_over(tmp_path: Path, cut: int) -> None:
    store = Store(tmp_path)
    first, second, third = row("gref", 1), row("gref", 2), row("prm", 1)
    store.add(first)
    whole = store.file(CASE).stat().st_size
    store.add(second)
    with store.file(CASE).open("rb+") as file:
        file.truncate(min(whole + cut, store.file(CASE).stat().st_size - 1))
    assert list(Store(tmp_path).rows().values()) == [first]
    store.add(third)
    assert list(Store(tmp_path).rows().values()) == [first, third]


def test_a_case_has_a_file_and_its_variants_stand_in_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cases = ("fatigue", "plain", "fatigue+share=0.2", "fatigue+share=0.2+candidates=50")
    rows = [msgspec.structs.replace(row("gref", 1), case=case) for case in cases]
    for one in rows:
        store.add(one)
    assert {file.name for file in tmp_path.glob("*.jsonl")} == {"fatigue.jsonl", "plain.jsonl"}
    assert {one.case for one in Store(tmp_path).rows().values()} == set(cases)


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(row("gref", 1))
    store.add(row("gref", 2))
    store.file(CASE).write_bytes(store.file(CASE).read_bytes().replace(b'"seed":1', b'"seed":x', 1))
    with pytest.raises(ContractError, match="line 1 is not a result"):
        store.rows()


def test_the_last_row_of_a_key_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = row("gref", 1)
    store.add(one)
    store.add(msgspec.structs.replace(one, cpu_seconds=99.0))
    assert [found.cpu_seconds for found in store.rows().values()] == [99.0]


def test_the_key_is_what_the_result_depends_on() -> None:
    one = row("gref", 1)
    other = [
        row("gref", 2),
        row("prm", 1),
        row("gref", 1, control="shuffled"),
        row("gref", 1, role="trial"),
        row("gref", 1, settings={"rate": 0.002}),
        row("gref", 1, data="e"),
        row("gref", 1, code="0ld"),
        row("gref", 1, case="other"),
    ]
    assert len({found.key for found in (one, *other)}) == 9
    assert row("gref", 1, cpu_seconds=0.0, machine={"cores": "64"}, trial=1).key == one.key


def _add(folder: Path, seed: int) -> None:
    for part in range(20):
        Store(folder).add(row("gref", 1, settings={"part": part, "from": seed}))


def test_two_processes_append_to_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_add, args=(tmp_path, seed)) for seed in (1, 2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    rows: dict[str, Row] = Store(tmp_path).rows()
    assert len(rows) == 40


def test_results_of_other_test_lists_are_refused(tmp_path: Path) -> None:
    """Paired with the kept ones, they would be wrong in silence."""
    store = fill(tmp_path)
    other = case_lists()
    other["label"] = ~other["label"]
    with pytest.raises(ContractError, match="other test lists"):
        store.add(row("gref", 7), lists(0.1), other)
    assert len(store.rows()) == 7
    store.add(row("gref", 7), lists(0.1), case_lists())


def test_a_torn_file_of_lists_is_named(tmp_path: Path) -> None:
    store = fill(tmp_path)
    file = tmp_path / "lists" / f"{row('gref', 1).key}.npz"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ContractError, match=file.name):
        store.lists(row("gref", 1))


@pytest.mark.parametrize("content", [None, b"", b"torn"])
def test_lists_that_are_gone_or_damaged_are_named(tmp_path: Path, content: bytes | None) -> None:
    store = Store(tmp_path)
    one = row("gref", 1)
    store.add(one, lists(0.3), case_lists())
    file = tmp_path / "lists" / f"{one.key}.npz"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ContractError, match=r"cannot be read.*git checkout"):
        store.lists(one)


def test_nothing_half_written_is_left_of_lists(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))  # as a disk with no more room
    try:
        with pytest.raises(OSError, match="File too large"):
            store.add(row("gref", 1), lists(0.3), case_lists())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.rows() == {}

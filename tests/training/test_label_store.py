"""Kept labels: made once, given back as they were, and never those of another identity."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from contracts.reading import ContractError
from tests.model.tiny import SPEC, random_batch
from training.label_store import SEARCHED_FILE, LabelStore
from training.pairs.ensemble import Ensemble
from training.pairs.evaluator import Evaluator
from training.pairs.fit_evaluator import EvaluatorReport
from training.pairs.search import Searched
from training.pairs.two_evaluators import EVALUATORS_FILE, Fitted, TwoEvaluators
from training.settings import EvaluatorSettings

CPU = torch.device("cpu")
TINY = EvaluatorSettings(width=8, layers=1, attention_heads=2, labellers=2)
FILES = (EVALUATORS_FILE, SEARCHED_FILE)

Made = TypeVar("Made")


class Maker:
    """Makes labels that differ each time, and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def two(self) -> TwoEvaluators:
        self.calls += 1
        torch.manual_seed(self.calls)
        members = [Evaluator(SPEC, TINY).eval() for _ in range(2)]
        reports = [EvaluatorReport(0.1 * self.calls, 0.5, gain, True, 1.0) for gain in (0.2, 0.3)]
        judge = Evaluator(SPEC, TINY).eval()
        return TwoEvaluators(Fitted(Ensemble(members), reports[0]), Fitted(judge, reports[1]))

    def searched(self) -> Searched:
        self.calls += 1
        rng = np.random.default_rng(self.calls)
        return Searched(rng.integers(-1, 9, (5, 3)), rng.normal(size=(5, 3, 9)).astype(np.float16))


def two(store: LabelStore, identity: str, maker: Maker, write: bool = True) -> TwoEvaluators:
    return store.two(identity, SPEC, TINY, CPU, maker.two, write)


def searched(store: LabelStore, identity: str, maker: Maker, write: bool = True) -> Searched:
    return store.searched(identity, maker.searched, write)


Ask = Callable[..., TwoEvaluators | Searched]
ASKS: tuple[Ask, ...] = (two, searched)
kinds = pytest.mark.parametrize("ask", ASKS)
sharing = pytest.mark.parametrize("shared", [False, True])


def same(one: TwoEvaluators | Searched, other: TwoEvaluators | Searched) -> bool:
    if isinstance(one, Searched) and isinstance(other, Searched):
        pairs = (one.lists, other.lists), (one.scores, other.scores)
        return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)
    assert isinstance(one, TwoEvaluators)
    assert isinstance(other, TwoEvaluators)
    reports = [(x.labeller.report, x.judge.report) for x in (one, other)]
    batch = random_batch([6, 4], seed=1)
    shown = batch.exposed.unsqueeze(1)
    values = [
        torch.cat([x.labeller.evaluator.value(batch, shown), x.judge.evaluator.value(batch, shown)])
        for x in (one, other)
    ]
    return reports[0] == reports[1] and torch.equal(*values)


@kinds
@sharing
def test_what_is_kept_is_given_back_and_not_made_again(
    tmp_path: Path, ask: Ask, shared: bool
) -> None:
    """By another process too, which knows the folder alone."""
    maker = Maker()
    made = ask(LabelStore(tmp_path, shared), "a" * 64, maker)
    for _ in range(2):
        assert same(ask(LabelStore(tmp_path, shared), "a" * 64, maker), made)
    assert maker.calls == 1


def test_both_kinds_lie_beside_each_other(tmp_path: Path) -> None:
    store, maker = LabelStore(tmp_path), Maker()
    first, second = two(store, "one", maker), searched(store, "other", maker)
    assert same(two(store, "one", maker), first)
    assert same(searched(store, "other", maker), second)
    assert maker.calls == 2
    assert {path.name for path in tmp_path.iterdir()} >= set(FILES)


@kinds
def test_a_folder_that_is_not_shared_holds_the_last_identity(tmp_path: Path, ask: Ask) -> None:
    store, maker = LabelStore(tmp_path), Maker()
    first = ask(store, "one", maker)
    second = ask(store, "two", maker)
    assert not same(first, second)
    assert same(ask(store, "two", maker), second)
    assert maker.calls == 2
    ask(store, "one", maker)
    assert maker.calls == 3


@kinds
def test_a_shared_folder_holds_every_identity(tmp_path: Path, ask: Ask) -> None:
    maker, names = Maker(), [letter * 64 for letter in "abc"]
    made = {name: ask(LabelStore(tmp_path, shared=True), name, maker) for name in names}
    for name in names:
        assert same(ask(LabelStore(tmp_path, shared=True), name, maker), made[name])
    assert maker.calls == 3


@kinds
def test_identities_that_begin_alike_are_not_confused(tmp_path: Path, ask: Ask) -> None:
    """They share a folder, but the file says whose it is."""
    store, maker = LabelStore(tmp_path, shared=True), Maker()
    first, second = (ask(store, "a" * 16 + end * 48, maker) for end in "xy")
    assert maker.calls == 2
    assert not same(first, second)


@kinds
@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_torn_file_is_refused_by_its_name(tmp_path: Path, ask: Ask, left: float) -> None:
    ask(LabelStore(tmp_path), "one", Maker())
    (file,) = tmp_path.glob("*.pt")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * left)])
    maker = Maker()
    with pytest.raises(ContractError, match=f"{file.name}.*damaged"):
        ask(LabelStore(tmp_path), "one", maker)
    assert maker.calls == 0


@kinds
def test_a_byte_that_has_turned_is_seen(tmp_path: Path, ask: Ask) -> None:
    ask(LabelStore(tmp_path), "one", Maker())
    (file,) = tmp_path.glob("*.pt")
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    file.write_bytes(whole)
    with pytest.raises(ContractError, match=file.name):
        ask(LabelStore(tmp_path), "one", Maker())


@kinds
@sharing
def test_who_may_not_write_leaves_nothing_behind(tmp_path: Path, ask: Ask, shared: bool) -> None:
    folder, maker = tmp_path / "labels", Maker()
    for calls in (1, 2):
        ask(LabelStore(folder, shared), "one", maker, write=False)
        assert maker.calls == calls
        assert not folder.exists()
    made = ask(LabelStore(folder, shared), "one", maker)
    before = sorted(folder.rglob("*"))
    assert same(ask(LabelStore(folder, shared), "one", maker, write=False), made)
    assert sorted(folder.rglob("*")) == before


def busy(seconds: float, make: Callable[[], Made]) -> Callable[[], Made]:
    """Spends about so much of the processor first."""

    def made() -> Made:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
        return make()

    return made


def test_seconds_that_were_saved_are_those_that_were_spent(tmp_path: Path) -> None:
    """Nothing is saved by who makes the labels; who takes them saves what each of them cost."""
    maker, first, later = Maker(), LabelStore(tmp_path), LabelStore(tmp_path)
    for store in (first, later):
        store.two("one", SPEC, TINY, CPU, busy(0.2, maker.two), True)
        between = store.saved_seconds
        store.searched("two", busy(0.4, maker.searched), True)
    assert maker.calls == 2
    assert first.saved_seconds == 0
    assert 0.2 <= between < 0.35
    assert 0.4 <= later.saved_seconds - between < 0.55


@kinds
def test_labels_whose_cost_is_not_known_are_taken_all_the_same(tmp_path: Path, ask: Ask) -> None:
    """A run that was killed just before it wrote how long it took."""
    maker = Maker()
    made = ask(LabelStore(tmp_path), "one", maker)
    for file in tmp_path.glob("*.seconds"):
        file.unlink()
    store = LabelStore(tmp_path)
    assert same(ask(store, "one", maker), made)
    assert maker.calls == 1
    assert store.saved_seconds == 0


@kinds
def test_of_two_that_want_the_same_one_makes_it(tmp_path: Path, ask: Ask) -> None:
    """Evaluators cost minutes: who comes second waits, and takes them."""
    maker, both = Maker(), threading.Barrier(2)
    slow = Maker()

    def made(kind: str) -> Any:
        time.sleep(0.2)  # time enough for the other to come, were it let in
        return getattr(maker, kind)()

    slow.two = lambda: made("two")  # type: ignore[method-assign]
    slow.searched = lambda: made("searched")  # type: ignore[method-assign]

    def work(_: int) -> TwoEvaluators | Searched:
        store = LabelStore(tmp_path, shared=True)
        both.wait()
        return ask(store, "a" * 64, slow)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(work, range(2))
    assert maker.calls == 1
    assert same(one, other)

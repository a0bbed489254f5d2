"""Plans: what is trained next follows from what is stored, wherever a run was cut off."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.comparison.cases import CASES
from training.comparison.code_state import ROOT, code_state, meaning, slates_state
from training.comparison.jobs import Job, Known, Plan, choose, seconds_left
from training.comparison.store import Row
from training.comparison.systems import systems

NAMES = ("given", "dnn", "gref")
EDGE = {"edge_rerank", "edge_rerank-greedy"}
GREF_KINDS = {"gref", "gref-pre", "gref-post", "gref-published"}


def plan(trials: int = 3, seeds: tuple[int, ...] = (1, 2)) -> Plan:
    known = systems()
    return Plan([CASES["tiny"]], [known[name] for name in NAMES], seeds, trials, [1])


def done(job: Job, held_out: float = 0.0, code: str | None = None) -> Row:
    return Row(
        case=job.case.name,
        method=job.system.name,
        seed=job.seed,
        role=job.role,
        control=job.control,
        trial=job.trial,
        trials=job.trials,
        settings=job.plain,
        data=job.case.identity(),
        code=code or job.code,
        held_out=held_out if job.role == "trial" else None,
        cpu_seconds=2.0,
    )


def known_of(rows: list[Row], stale: bool = False) -> Known:
    return Known({row.key: row for row in rows}, stale)


@settings(max_examples=12)
@given(st.randoms(use_true_random=False), st.integers(1, 3))
def test_any_order_and_any_cut_end_in_the_same_rows(rng, trials: int) -> None:  # type: ignore[no-untyped-def]
    """Jobs are done in any order, by any number of processes: all of the plan is done once."""
    one = plan(trials)
    rows: list[Row] = []
    while ready := one.ready(known_of(rows)):
        assert len(one.left(known_of(rows))) == one.size() - len(rows)
        rows.append(done(rng.choice(ready), held_out=0.5))
    assert len(rows) == one.size() == len({row.key for row in rows})
    assert one.left(known_of(rows)) == []
    finals = {(r.method, r.control, r.seed) for r in rows if r.role == "final"}
    assert len(finals) == 3 * 2 + 2  # no control of the given order: feedback cannot change it


def test_final_runs_wait_for_all_trials_and_take_the_best() -> None:
    one = plan(trials=3)
    ready = [job for job in one.ready(known_of([])) if job.system.name == "dnn"]
    assert {job.role for job in ready} == {"trial"}
    assert len(ready) == 3
    rows = [done(job, held_out=[0.1, 0.3, 0.2][job.trial]) for job in ready]
    part = [job for job in one.ready(known_of(rows[:2])) if job.system.name == "dnn"]
    assert [job.role for job in part] == ["trial"]
    finals = [job for job in one.ready(known_of(rows)) if job.system.name == "dnn"]
    assert {job.role for job in finals} == {"final"}
    assert {job.trial for job in finals} == {1}
    assert all(job.settings == ready[1].settings for job in finals)


def test_every_learning_system_gets_the_same_number_of_trials() -> None:
    for name, system in systems().items():
        tried = system.trials(CASES["tiny"], 4)
        assert len(tried) == (4 if system.learns else 1), name
        assert len({msgspec.json.encode(one) for one in tried}) == len(tried)


def test_rows_of_an_earlier_state_of_the_code_count_only_when_asked() -> None:
    one = plan(trials=1)
    rows = [done(job, code="0ld") for job in one.ready(known_of([]))]
    assert len(one.ready(known_of(rows))) == one.size()
    assert one.ready(known_of(rows, stale=True)) == []


def test_a_trials_score_is_of_what_judged_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of two judges are not to be compared; a final run asks none."""
    jobs = plan(trials=2).ready(known_of([])) + plan(trials=1).ready(known_of([]))
    before = [job.key() for job in jobs]
    monkeypatch.setattr("training.comparison.jobs.JUDGE_CODE", ("training.pairs.beam",))
    assert {job.role for job in jobs} == {"trial", "final"}
    for job, key in zip(jobs, before):
        assert (job.key() != key) == (job.role == "trial"), str(job)
        assert done(job).system_code == code_state(job.system.code)


def test_trials_without_a_score_lose() -> None:
    jobs = [job for job in plan().ready(known_of([])) if job.system.name == "dnn"]
    low = done(jobs[1], held_out=-5.0)
    none = msgspec.structs.replace(done(jobs[0]), held_out=None)
    assert choose([(jobs[0], none), (jobs[1], low)]) is jobs[1]


def test_the_estimate_is_of_like_trainings() -> None:
    ready = plan(trials=1).ready(known_of([]))
    rows = [msgspec.structs.replace(done(job), cpu_seconds=t) for job, t in zip(ready, (1.0, 9.0))]
    case, method = rows[0].case, rows[0].method
    assert seconds_left([(case, method), ("other", method)], rows[:1]) == 2.0
    assert seconds_left([(case, "never seen")], [rows[0], rows[1]]) == 5.0
    assert seconds_left([(case, method)], []) is None


def test_the_codes_meaning_is_not_its_comments() -> None:
    one = 'def f(x):\n    """Doc."""\n    return x + 1\n'
    assert meaning(one) == meaning('def f(x):  # why\n    """Other."""\n\n    return (x + 1)\n')
    assert meaning(one) != meaning(one.replace("1", "2"))


def test_a_peer_with_rates_depends_on_the_peer_inside_it() -> None:
    known = systems()
    for name in ("dnn", "prm"):
        assert set(known[name].code) < set(known[f"{name}-rates"].code)


def test_a_result_depends_on_what_its_system_imports(tmp_path: Path) -> None:
    """A change in one peer leaves the others as they are; one in what all share changes all."""
    for folder in ("training", "contracts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    everyone = systems()
    before = {name: code_state(one.code, tmp_path) for name, one in everyone.items()}
    assert before == {name: code_state(one.code) for name, one in everyone.items()}
    for changed, stale in (
        ("training/baselines/nar4rec_peer.py", {"nar4rec"}),
        ("training/baselines/pier.py", {"pier"}),
        ("training/pairs/beam.py", {*EDGE, "nar4rec", *GREF_KINDS}),
        ("training/losses/distillation.py", GREF_KINDS),
        ("training/optimism.py", GREF_KINDS),
        ("training/evaluation/truth.py", set(everyone)),
        ("training/comparison/plots.py", set()),
        ("training/sources/world.py", set()),  # slates have a hash of their own
    ):
        file = tmp_path / changed
        kept = file.read_text()
        file.write_text(kept + "\nCHANGED = 1\n")
        code_state.cache_clear()
        after = {name: code_state(one.code, tmp_path) for name, one in everyone.items()}
        file.write_text(kept)
        assert {name for name in everyone if after[name] != before[name]} == stale, changed
    code_state.cache_clear()


def test_slates_depend_on_what_their_source_imports(tmp_path: Path) -> None:
    """A change in the simulator leaves KuaiRand's slates as they are, and what learned of them."""
    for folder in ("training", "contracts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    sources = ("simulator", "kuairand")
    before = {name: slates_state(name, tmp_path) for name in sources}
    assert before == {name: slates_state(name) for name in sources}
    for changed, other in (
        ("training/sources/world.py", {"simulator"}),
        ("training/sources/initial_ranker.py", {"kuairand"}),
        ("training/sources/writing.py", set(sources)),
        ("training/comparison/utilities.py", set(sources)),
        ("training/baselines/pier.py", set()),
    ):
        file = tmp_path / changed
        kept = file.read_text()
        file.write_text(kept + "\nCHANGED = 1\n")
        slates_state.cache_clear()
        after = {name: slates_state(name, tmp_path) for name in sources}
        file.write_text(kept)
        assert {name for name in sources if after[name] != before[name]} == other, changed
    slates_state.cache_clear()

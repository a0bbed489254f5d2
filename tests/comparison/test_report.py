"""The tables, from a small stored example: exactly these."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.comparison.stored import case_lists, fill, lists, row
from training.comparison.cases import CASES, Case
from training.comparison.code_state import code_state
from training.comparison.finals import latest, tried
from training.comparison.gref import saw_pairs
from training.comparison.lines import Line, corrected, lines_of
from training.comparison.reporting import report
from training.comparison.store import Store
from training.comparison.systems import systems
from training.comparison.tables import markdown
from training.comparison.verdicts import verdicts
from training.evaluation.bootstrap import Interval

HEAD = (
    "| method | true click (95 %) | minus gref | p | p, Holm | minus given order "
    "| the same, shuffled feedback | seeds | trials | epoch | saw pairs | train CPU s | parameters "
    "| ms a request | x GReF |"
)
COST = "| 2 | 2 | 3.0 |  | 15.0 | 1,234 | 1.00 | 0.50 |"
TABLE = f"""\
## tiny

Simulated: a world of few items, to try the command.

{HEAD}
|{" --- |" * 15}
| given (2) | 2.0000 (1.3936 to 2.6064) | -0.3500 (-0.9853 to +0.2853) | 0.090 |  |  |  {COST}
| prm (2) | 2.1500 (1.5352 to 2.7648) | -0.2000 (-0.5042 to +0.1042) | 0.106 | 0.106 \
| +0.1500 (-0.4853 to +0.7853) |  {COST}
| **gref** (2) | 2.3500 (1.7352 to 2.9648) |  |  |  | +0.3500 (-0.2853 to +0.9853) \
| -0.5000 (-0.5000 to -0.5000) {COST}

(2) Of an earlier state of the code or of the slates (comparison.csv).

![tiny](plots/tiny.png)
"""


def test_the_stored_example_gives_exactly_this_table(tmp_path: Path) -> None:
    fill(tmp_path / "results")
    files = report(tmp_path / "results", tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert TABLE in text
    assert text.count("## ") == 1  # cases without results have no section
    assert {file.name for file in files} == {"comparison.md", "comparison.csv", "tiny.png"}
    first = {file.name: file.read_bytes() for file in files}
    again = report(tmp_path / "results", tmp_path)
    assert {file.name: file.read_bytes() for file in again} == first


def test_the_csv_holds_the_same_figures(tmp_path: Path) -> None:
    fill(tmp_path / "results")
    report(tmp_path / "results", tmp_path)
    with (tmp_path / "comparison.csv").open() as file:
        found = {line["method"]: line for line in csv.DictReader(file)}
    assert list(found) == ["given", "prm", "gref"]
    assert float(found["prm"]["over_reference"]) == pytest.approx(-0.2)
    assert float(found["gref"]["control"]) == pytest.approx(-0.5)
    assert found["gref"]["over_reference"] == ""
    assert found["given"]["codes"] == "c0de"


def test_alarms_and_mixed_code_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path / "results")
    now = {name: code_state(one.code) for name, one in systems().items()}
    store.add(row("prm", 3, alarm="DPO collapse", code=now["prm"]), lists(0.1))
    store.add(row("gref", 3, code=now["gref"]), lists(0.1))
    with monkeypatch.context() as patched:
        patched.setattr(Case, "identity", lambda self: "d" * 16)
        report(tmp_path / "results", tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert "| prm (1) |" in text
    assert "(1) An alarm ended at least one training. prm: DPO collapse" in text
    assert "| given (2) |" in text
    assert "| **gref** (2) |" in text, "its control is of another state"
    assert "(2) Of an earlier state of the code" in text
    report(tmp_path / "results", tmp_path)
    assert "| prm (1) (2) |" in (tmp_path / "comparison.md").read_text(), "other slates than now's"


def test_a_table_is_of_the_newest_slates_alone(tmp_path: Path) -> None:
    """Lists of other slates are other lists, and would pair with these in silence."""
    store = fill(tmp_path / "results")
    for method in ("given", "gref"):
        store.add(row(method, 1, data="e" * 16), lists(0.3), case_lists())
    report(tmp_path / "results", tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert "| given" in text
    assert "| prm" not in text


def test_results_of_now_go_before_later_ones_of_another_state(tmp_path: Path) -> None:
    """Code that was changed and changed back: what was stored in between is not of now."""
    store = fill(tmp_path / "results")
    for method, code, data in (("prm", "beef", "d" * 16), ("gref", "c0de", "e" * 16)):
        store.add(row(method, 1, code=code, data=data), lists(0.9), case_lists())
    rows = list(store.rows().values())
    now = dict.fromkeys(("given", "prm", "gref"), ("d" * 16, "c0de"))
    found = lines_of(store, rows, "tiny", "true click", list(now), "gref", now)
    assert [(one.method, one.seeds, one.stale) for one in found] == [
        ("given", 2, False), ("prm", 2, False), ("gref", 2, False)
    ]  # fmt: skip


def tried_of(*held_out: float, trials: int = 3, shown: int = 0, stated: int = 1) -> int:
    """Trials of prm with these scores; the final row has the settings of the one ``shown``."""
    rates = [{"rate": float(number)} for number in range(max(3, len(held_out)))]
    rows = [
        row("prm", 0, role="trial", trial=number, trials=trials, settings=rates[number],
            held_out=score, metrics={}, code="c0de+0f-its-judge")
        for number, score in enumerate(held_out)
    ]  # fmt: skip
    final = row("prm", 1, settings=rates[shown], trials=stated)
    return tried([*rows, final], [final])


def test_trials_are_those_among_which_the_settings_were_chosen() -> None:
    assert tried_of(0.3, 0.2, 0.1) == 3, "tried later, all of them, and these are the best"
    assert tried_of(0.3, 0.2) == 1, "one of three is not there yet"
    assert tried_of(0.1, 0.2, 0.3) == 1, "others are better: these were chosen among one"
    assert tried_of(0.1, 0.2, 0.3, shown=2, stated=3) == 3
    assert tried_of() == 1
    assert tried_of(stated=4) == 4


def test_only_the_newest_settings_and_code_make_a_line() -> None:
    rows = [row("prm", 1), row("prm", 2), row("prm", 1, settings={"rate": 0.1})]
    assert latest(rows) == rows[2:]
    assert latest([*rows, row("prm", 2, settings={"rate": 0.1})])[1].seed == 2
    assert latest(rows, "shuffled") == []


def test_without_results_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    report(Store(tmp_path / "results").folder, tmp_path)
    assert "No results are stored yet" in (tmp_path / "comparison.md").read_text()
    assert CASES["tiny"].primary == "true click"


def line(method: str, value: float, over: tuple[float, float] | None, **more: Any) -> Line:
    """A line with a difference to gref whose interval and p are given; three seeds."""
    both = None if over is None else Interval(estimate=sum(over) / 2, low=over[0], high=over[1])
    p = None if over is None else 0.001 if over[0] * over[1] > 0 else 0.3
    plain: dict[str, Any] = {
        "method": method,
        "seeds": 3,
        "trials": 4,
        "value": Interval(estimate=value, low=value, high=value),
        "over_reference": both,
        "p": p,
    }
    return Line(**{**plain, **more})


def verdict_of(prm: Line, given: float = 0.1, seeds: int = 3, peers: Iterable[str] = ()) -> str:
    """Of GReF beside PRM and NAR4Rec, which is always behind."""
    over_given = Interval(estimate=given, low=given - 0.05, high=given + 0.05)
    lines = [
        line("oracle", 9.0, (1.0, 2.0)),
        prm,
        line("nar4rec", 1.9, (-0.2, -0.1), latency_ratio=1.0),
        line("gref", 2.0, None, over_given=over_given, latency_ratio=1.02, seeds=seeds,
             saw_pairs=1),
        line("gref-pre", 1.7, (-0.4, -0.2)),
    ]  # fmt: skip
    rivals = {"prm", "nar4rec", *peers}
    return verdicts([("fatigue", corrected(lines, rivals))], "gref", rivals)


@pytest.mark.parametrize(
    ("prm", "given", "said"),
    [
        ((-0.3, -0.1), 0.1, "ahead of every peer"),
        ((-0.3, 0.1), 0.1, "no difference shown to prm (-0.100); ahead of the others"),
        ((0.1, 0.2), 0.1, "**behind prm**; ahead of the others"),
        ((-0.3, -0.1), -0.1, "**below the given order**"),
    ],
)
def test_verdicts_follow_from_the_intervals(
    prm: tuple[float, float], given: float, said: str
) -> None:
    rival = line("prm", 1.8, prm)
    text = verdict_of(rival, given)
    assert f"| {said} |" in text
    assert f"| {said}; not run: dnn, pier |" in verdict_of(rival, given, peers=("dnn", "pier"))
    assert "| nar4rec |" in text  # the best peer; the oracle is none
    assert "| 1.02 |" in text
    assert "| 1 of 3 | 4 each |" in text
    assert "pre -0.3000 (-0.4000 to -0.2000)" in text


def test_a_verdict_is_of_all_peers_at_once() -> None:
    """What is beyond its own interval may not be, once it is asked of as many peers."""
    rival = line("prm", 2.1, (0.01, 0.2), p=0.03)
    found = [line(f"peer{number}", 1.0, (-0.1, 0.1)) for number in range(7)]
    own = line("gref", 2.0, None)
    together = {rival.method, *(one.method for one in found)}
    assert "| 0.240 | no difference shown to any peer |" in verdicts(
        [("fatigue", corrected([rival, *found, own], together))], "gref", together
    )


def test_the_table_is_bold_where_the_verdict_calls_a_difference(tmp_path: Path) -> None:
    lines = [line("prm", 2.1, (0.01, 0.2), p=0.03, lists=300, users=200),
             line("dnn", 1.0, (-0.1, 0.1)), line("gref", 2.0, None)]  # fmt: skip
    alone = markdown(CASES["tiny"], corrected(lines, {"prm"}), "gref")
    assert "**+0.1050 (+0.0100 to +0.2000)** | 0.030 | 0.030" in alone
    assert "300 test lists of 200 users." in alone
    both = markdown(CASES["tiny"], corrected(lines, {"prm", "dnn"}), "gref")
    assert "| +0.1050 (+0.0100 to +0.2000) | 0.030 | 0.060" in both


def test_a_control_is_bold_only_of_several_trainings(tmp_path: Path) -> None:
    store = fill(tmp_path / "results")
    store.add(row("gref", 2, control="shuffled"), lists(-0.5), case_lists())
    report(tmp_path / "results", tmp_path)
    assert "**-0.5000 (-0.5000 to -0.5000)**" in (tmp_path / "comparison.md").read_text()


def test_without_a_p_nothing_is_shown() -> None:
    text = verdict_of(line("prm", 1.8, (-0.3, -0.1), p=None))
    assert "no difference shown to prm" in text


def test_one_training_decides_nothing(tmp_path: Path) -> None:
    assert "one training: nothing is known of others" in verdict_of(
        line("prm", 1.8, (-0.3, -0.1)), seeds=1
    )
    assert "no difference shown to prm" in verdict_of(
        line("prm", 1.8, (-0.3, -0.1), seeds=1, one_seed=True)
    )
    store = Store(tmp_path / "results")
    for method, worth in (("given", 0.0), ("prm", 0.1), ("gref", 0.3)):
        store.add(row(method, 1), lists(worth), case_lists())
    report(store.folder, tmp_path)
    assert "-0.2000 (-0.2000 to -0.2000) |" in (text := (tmp_path / "comparison.md").read_text())
    assert "**-0.2000" not in text, "not bold: another training may say otherwise"


def test_a_control_that_a_gate_ended_says_so(tmp_path: Path) -> None:
    store = fill(tmp_path / "results")
    refused = row("gref", 1, control="shuffled", alarm="the evaluators know nothing")
    store.add(refused, lists(0.0))
    report(tmp_path / "results", tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert "(3) An alarm ended the control" in text
    assert "gref: the evaluators know nothing" in text


def test_a_control_of_other_settings_is_not_shown(tmp_path: Path) -> None:
    store = fill(tmp_path / "results")
    for seed in (1, 2):
        store.add(row("gref", seed, settings={"rate": 0.1}, trials=4), lists(0.4))
    report(tmp_path / "results", tmp_path)
    own = next(one for one in (tmp_path / "comparison.md").read_text().splitlines()
               if one.startswith("| **gref**"))  # fmt: skip
    assert "-0.5000" not in own


@pytest.mark.parametrize(
    ("epoch", "method", "changes", "wanted"),
    [
        (3, "gref", {}, False),
        (4, "gref", {}, True),
        (1, "gref", {"dpo_epochs": 0}, True),
        (1, "gref", {"distil": 0.0}, True),
        (0, "gref", {"dpo_epochs": 0}, False),
        (4, "gref", {"dpo": 0.0}, False),
        (4, "gref-pre", {}, None),
    ],
)
def test_a_row_says_whether_its_epoch_had_seen_pairs(
    epoch: int, method: str, changes: dict[str, Any], wanted: bool | None
) -> None:
    post = {"dpo": 1.0, "dpo_epochs": 1, "distil": 1.0, "optim": {"epochs": 4}, **changes}
    assert saw_pairs(row(method, 1, epoch=epoch, settings={"post_train": post})) is wanted
    assert saw_pairs(row("prm", 1)) is None

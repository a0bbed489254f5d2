"""The report of a refresh: Markdown with pictures, for whoever asks why this was served, or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from contracts.releases import Gate
from training.data.facts import DataFacts
from training.refreshing.findings import Evaluation, Findings, Training
from training.refreshing.judging import CANDIDATE, CHAMPION
from training.refreshing.plots import (
    CURVES,
    FOREST,
    POSITIONS,
    plot_curves,
    plot_differences,
    plot_positions,
)

REPORT = "report.md"


def write_report(folder: Path, findings: Findings) -> None:
    """Write ``folder``/report.md with its pictures, in place of what an earlier attempt left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if findings.facts is not None:
        plot_positions(findings.facts, findings.reference, folder / POSITIONS)
    if findings.training is not None:
        plot_curves(findings.training, folder / CURVES)
    if findings.evaluation is not None:
        plot_differences(findings.evaluation, folder / FOREST)
    (folder / REPORT).write_text("\n".join(_lines(findings)) + "\n", encoding="utf-8")


def _lines(findings: Findings) -> Iterator[str]:
    outcome = "refused" if findings.reason else "passed every gate"
    yield f"# Refresh of {findings.champion}: {outcome}"
    yield ""
    if findings.reason:
        yield f"**Why:** {findings.reason}"
        yield ""
    yield from _input(findings)
    if findings.training is not None:
        yield from _training(findings.training)
    if findings.evaluation is not None:
        yield from _evaluation(findings.evaluation)
        yield from _off_policy(findings.evaluation)
        yield from _drift(findings.evaluation)
    if findings.latency is not None and not findings.latency.why:
        latency = findings.latency
        yield "## Latency"
        yield ""
        yield (
            f"One request through both engines, medians of one run: candidate "
            f"{latency.candidate_ms:.2f} ms, champion {latency.champion_ms:.2f} ms."
        )
        yield ""
    yield from _gates(findings.gates)
    yield from _next(findings)


def _input(findings: Findings) -> Iterator[str]:
    scope = findings.scope
    yield "## What went in"
    yield ""
    yield f"- Champion: {findings.champion}, the frozen reference of the DPO"
    yield f"- Table: `{findings.table}` (id {scope.table}), versions {scope.first} to {scope.last}"
    yield f"- Identity of this input: `{findings.identity}`"
    yield ""
    facts, before = findings.facts, findings.reference
    if facts is None:
        yield "No usable slate."
    else:
        yield from _table(("", "these slates", "reference"), _facts(facts, before))
        yield ""
        yield "The reference is what the champion was trained on."
        yield ""
        yield f"![Feedback by position and kind]({POSITIONS})"
    yield ""
    for reason, count in findings.dropped.items():
        yield f"- dropped, {reason}: {count:,}"
    if findings.dropped:
        yield ""


def _facts(facts: DataFacts, before: DataFacts | None) -> Iterator[tuple[str, ...]]:
    rows: list[tuple[str, str, Callable[[DataFacts], float]]] = [
        ("slates", "{:,}", lambda one: one.slates),
        ("users", "{:,}", lambda one: one.users),
        ("slates with U", "{:,}", lambda one: one.with_utility),
        ("lists with U on every item", "{:.4f}", lambda one: one.saturated),
        ("largest share of U by one user", "{:.4f}", lambda one: one.largest_user_share),
        ("fallbacks", "{:.4f}", lambda one: one.fallbacks),
    ]
    for name, form, value in rows:
        yield name, form.format(value(facts)), form.format(value(before)) if before else ""
    for kind, rate in facts.rates.items():
        then = f"{before.rates[kind]:.4f}" if before and kind in before.rates else ""
        yield f"{kind}, a shown item", f"{rate:.4f}", then


def _training(training: Training) -> Iterator[str]:
    yield "## Training"
    yield ""
    yield (
        f"Epoch {training.best_epoch} of {len(training.epochs) - 1} is chosen by the held-out "
        f"{training.selection} ({training.best_score:.4f}); epoch 0 is the champion."
    )
    if training.examination is not None:
        yield f"Examination of position k taken as k^-{training.examination:.2f}."
    if training.alarm:
        yield f"**Alarm:** {training.alarm}"
    yield ""
    yield f"![Learning curves]({CURVES})"
    yield ""
    names = ("logps/chosen", "logps/rejected", "logps/chosen_fall", "rewards/accuracies")
    rows = [
        (f"{row['epoch']:.0f}", *("" if row.get(n) is None else f"{row[n]:.3f}" for n in names))
        for row in training.epochs
    ]
    yield from _table(
        ("epoch", "log p chosen", "log p rejected", "chosen fell by", "accuracy"), rows
    )
    yield ""


def _evaluation(evaluation: Evaluation) -> Iterator[str]:
    judged = evaluation.judged
    comparison = judged.comparison
    yield "## Candidate and champion on the newest slates"
    yield ""
    yield (
        f"{comparison.lists:,} lists of {comparison.users:,} users that neither training nor the "
        f"choice of the epoch has seen; {100 * comparison.level:g} % intervals, paired bootstrap "
        f"over users. The candidate changes {judged.changed:.0%} of the lists."
    )
    if judged.judge_gain is not None:
        yield (
            f"`value` is the expected U a list by the judge, an evaluator fitted on other users "
            f"than the one that labelled pairs; it predicts held-out feedback "
            f"{judged.judge_gain:+.2%} better than the position alone."
        )
    yield ""
    yield f"![Differences]({FOREST})"
    yield ""
    rows = []
    for result in comparison.results:
        if result.method == CANDIDATE and result.difference is not None:
            champion = comparison.get(result.metric, CHAMPION).value.estimate
            d = result.difference
            rows.append(
                (
                    result.metric,
                    f"{champion:.4f}",
                    f"{result.value.estimate:.4f}",
                    f"{d.estimate:+.4f} ({d.low:+.4f} to {d.high:+.4f})",
                )
            )
    yield from _table(("metric", CHAMPION, CANDIDATE, "difference"), rows)
    yield ""
    yield (
        "Metrics of shown items favour the order that was shown, for what stands higher is seen "
        "more: a good candidate may lose there. `ndcg_shown_ips` corrects for it: "
        + (
            f"examination of position k is taken as k^-{judged.eta:.2f}, estimated from the log."
            if not judged.eta_why
            else f"not here, for the log cannot tell: {judged.eta_why}."
        )
    )
    yield ""


def _off_policy(evaluation: Evaluation) -> Iterator[str]:
    yield "## Off-policy estimates"
    yield ""
    rows = [
        (
            f"{one.estimator}, {one.assumption}",
            one.policy,
            "" if one.value is None else f"{one.value:+.4f}",
            "" if one.low is None or one.high is None else f"{one.low:+.4f} to {one.high:+.4f}",
            f"{one.effective_sample_size:.0f} of {one.slates}",
            f"{one.clipped_share:.2%}",
            "yes" if one.usable else f"no: {one.why}",
        )
        for one in evaluation.off_policy
    ]
    if not rows:
        yield "None were made."
    else:
        head = ("estimator", "of", "U a list", "interval", "effective slates", "clipped", "usable")
        yield from _table(head, rows)
    yield ""


def _drift(evaluation: Evaluation) -> Iterator[str]:
    drift = evaluation.drift
    yield "## Drift and lineage"
    yield ""
    yield f"- Lineage: candidate <- {' <- '.join(drift.lineage)}"
    yield f"- From the champion: {drift.from_champion:.2f} nats a list (mean KL divergence)"
    if drift.from_anchor is None:
        yield f"- From the anchor {drift.anchor}: not measured: {drift.why}"
    else:
        yield f"- From the anchor {drift.anchor}: {drift.from_anchor:.2f} nats a list"
    yield ""


def _gates(gates: tuple[Gate, ...]) -> Iterator[str]:
    yield "## Gates"
    yield ""
    rows = [
        (
            "pass" if gate.passed else "**FAIL**",
            f"`{gate.name}`",
            f"{gate.value:.4g}",
            f"{gate.limit:.4g}",
            gate.detail,
        )
        for gate in gates
    ]
    yield from _table(("", "gate", "value", "limit", "detail"), rows)
    yield ""
    yield "Gates that are not listed were not come to."
    yield ""


#: What to do about a refusal, by the beginning of the gate's name.
ADVICE = {
    "data.slates": "Wait for more traffic, or lower data.min_slates.",
    "data.users": "Wait for traffic of more users.",
    "data.feedback": "Look whether feedback events arrive (streaming/table.py validate).",
    "data.dropped": "Find who writes slates that the model cannot take.",
    "data.duplicates": "The table holds a request twice: `streaming/table.py validate`.",
    "data.one_user": "Look at that user's traffic: a bot? Leave its versions out "
    "(--since-version), or delete its rows.",
    "data.fallbacks": "The release answered too seldom in time: see to serving first.",
    "data.": "Feedback is not what it was: bots, a broken client, or a changed surface. If it is "
    "real, raise the limit once; if not, leave those versions out with --since-version, or "
    "delete the rows.",
    "train.alarms": "Read the alarm; more slates, or gentler training.",
    "train.better": "The champion stays; nothing is wrong with that. More slates may tell.",
    "train.": "See the learning curves; gentler training (learning rate, beta, likelihood term).",
    "value": "By the judge the candidate is no better; the champion stays.",
    "ranking.": "The candidate orders shown items worse than the log bears out.",
    "off_policy.": "Explored traffic says that the candidate earns less.",
    "drift.": "Many refreshes have moved the policy far from its anchor: train a new anchor "
    "(pretrain.py, post_train.py) and compare in an experiment.",
    "latency": "The engines became slower: compare settings with the champion's manifest.",
    "parity.": "The engines differ from the model: a fault of export, not of the data.",
}


def _next(findings: Findings) -> Iterator[str]:
    yield "## What to do next"
    yield ""
    failed = [gate for gate in findings.gates if not gate.passed]
    if not failed:
        yield (
            "Nothing is served yet. Compare it with the champion in an experiment, or name it the "
            "champion: `python training/releases.py champion <this release> --reason ...`; to "
            "undo that: `python training/releases.py rollback`."
        )
        return
    for gate in failed:
        advice = next(text for start, text in ADVICE.items() if gate.name.startswith(start))
        yield f"- `{gate.name}`: {advice}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/').replace(chr(10), ' ') for cell in row)} |"

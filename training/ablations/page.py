"""A case's part of an ablation's page: two sentences that the results give, and a table."""

from __future__ import annotations

from collections.abc import Sequence

from training.ablations.ablation import Ablation
from training.ablations.found import Found, over_given
from training.comparison.cases import Case
from training.comparison.lines import LEVEL
from training.comparison.markdown import average, p_value, signed, spread, table


def answer(ablation: Ablation, case: Case, found: Sequence[Found]) -> str:
    """Two sentences that follow from the figures and say no more than they do."""
    metric = ablation.metric or case.primary
    first = f"On {words(case)} the highest {metric} is that of {_highest(found)}."
    compared = [one for one in found if one.over is not None]
    if not compared:
        return (
            f"{first} No arm is of the reference's code and test lists, so none is paired with it."
        )
    versus = _versus(ablation, found)
    once = [one for one in compared if one.once]
    uncalled = f"trained once, so no difference to {versus} is called one"
    if once == compared:
        return f"{first} Every arm was {uncalled}: they reach from {_range(compared)}."
    differing = [one for one in compared if one.differs]
    parts = [
        f"{what}: {', '.join(repr(one.arm.label) for one in arms)}"
        for what, arms in (
            (f"better than {versus} (p < {LEVEL}, Holm)", _signed(differing, 1)),
            (f"worse than {versus} (p < {LEVEL}, Holm)", _signed(differing, -1)),
            ("an alarm or the judge left the policy as it began",
             [one for one in compared if one.stayed]),
            (uncalled, [one for one in once if not one.stayed]),
        )
        if arms
    ]  # fmt: skip
    second = "; ".join(parts) or f"no arm is shown to differ from {versus} (p >= {LEVEL}, Holm)"
    return f"{first} {second[0].upper()}{second[1:]}."


def _versus(ablation: Ablation, found: Sequence[Found]) -> str:
    return f"'{ablation.reference}'" + " of its world" * (len(_worlds(found)) > 1)


def _worlds(found: Sequence[Found]) -> list[list[Found]]:
    """The arms of each world: lists of different worlds say nothing of one another."""
    groups: dict[str, list[Found]] = {}
    for one in found:
        groups.setdefault(str(one.arm.world), []).append(one)
    return list(groups.values())


def _highest(found: Sequence[Found]) -> str:
    """The arm of the highest value, or that of each world, and how often arms were trained."""
    best = [max(arms, key=lambda one: one.drawn.estimate) for arms in _worlds(found)]
    if len(best) == 1:
        return f"'{best[0].arm.label}' ({best[0].drawn.estimate:.4f}, {_seeds(found)})"
    named = ", ".join(f"'{one.arm.label}' ({one.drawn.estimate:.4f})" for one in best)
    return f"{named}, each in its world ({_seeds(found)})"


def _signed(found: Sequence[Found], sign: int) -> list[Found]:
    """Those whose difference to the reference has this sign."""
    return [one for one in found if one.over and sign * one.over.estimate > 0]


def _range(found: Sequence[Found]) -> str:
    differences = [one.over.estimate for one in found if one.over]
    return f"{min(differences):+.3f} to {max(differences):+.3f}"


def _seeds(found: Sequence[Found]) -> str:
    """How many trainings of an arm there are, and what is taken for those that have one."""
    counts = [len(one.rows) for one in found]
    if max(counts) == 1:
        return "1 seed: intervals are those of other users, not of other trainings"
    if min(counts) == max(counts):
        return f"{max(counts)} seeds"
    return (
        f"{min(counts)} to {max(counts)} seeds; an arm of one is taken to vary from training to "
        "training as the reference does"
    )


def words(case: Case) -> str:
    """A case's name as people say it."""
    name, *_ = case.name.split("+")
    return f"`{name}`" + (f" with {case.share:.0%} of the train lists" if case.share < 1 else "")


def page(ablation: Ablation, case: Case, found: Sequence[Found]) -> str:
    """The part of a page that is of one case."""
    metric = ablation.metric or case.primary
    exposed = any(one.exposed for one in found)
    head = ["arm", f"{metric} (95 %)", f"minus {_versus(ablation, found)}", "p, Holm",
            "minus given order, mean", *(["exposure order minus given"] if exposed else []),
            *ablation.scalars,
            "seeds", "epoch", "x GReF", "train CPU s", "alarm"]  # fmt: skip
    rows = [
        [
            one.arm.label + " (2)" * one.stale,
            spread(one.drawn.interval()),
            signed(one.over, bold=one.differs),
            p_value(one.p if one.over and not one.once else None),
            average(over_given(one.rows, metric), "+.4f"),
            *([_exposed(one, metric)] if exposed else []),
            *(average(row.scalars.get(name) for row in one.rows) for name in ablation.scalars),
            str(len(one.rows)),
            average((row.epoch for row in one.rows), ".1f"),
            average((row.latency_ratio for row in one.rows), ".2f"),
            average(row.cpu_seconds for row in one.rows),
            f"{sum(bool(row.alarm) for row in one.rows)} of {len(one.rows)}",
        ]
        for one in found
    ]
    text = [f"## {words(case)}", "", answer(ablation, case, found), "", *table(head, rows)]
    if any(one.stale for one in found):
        text += ["", "(2) Of an earlier state of the code, of the slates or of the recipe."]
    alarms = [(one.arm.label, row.alarm) for one in found for row in one.rows[:1] if row.alarm]
    text += [line for label, alarm in alarms for line in ("", f"Alarm of '{label}': {alarm}.")]
    return "\n".join(text) + "\n"


def _exposed(one: Found, metric: str) -> str:
    return average(over_given([one.exposed] if one.exposed else [], metric), "+.4f")

"""The top of the page: what the experiment is, what to do next, and four figures."""

from __future__ import annotations

from deploy.analysis.shown import shown_effect
from deploy.analysis.status import ExperimentStatus
from deploy.report_page.markup import Html, tag
from deploy.report_page.numbers import count, interval, lift, number, p_value, span, when
from deploy.report_page.tables import READINGS, chip

_TONES = {"ship": "good", "wait": "", "stop": "warn", "roll back": "bad"}
_STATES = {"running": "good", "draft": "", "stopped": "warn"}


def header(status: ExperimentStatus) -> Html:
    """Name, description, and where the figures come from."""
    facts = {
        "Unit": status.unit,
        "Lists counted": f"{when(status.first)} to {when(status.last)}"
        if status.first is not None
        else "none",
        "Feedback table": f"{status.table}, version {status.table_version}",
        "Looked at": when(status.now),
    }
    return tag(
        "header",
        tag("p", "Experiment ", chip(status.state, _STATES.get(status.state, "")), class_="over"),
        tag("h1", status.name),
        tag("p", status.description, class_="lead") if status.description else None,
        tag(
            "dl",
            *(tag("div", tag("dt", name), tag("dd", text)) for name, text in facts.items()),
            class_="facts",
        ),
    )


def verdict(status: ExperimentStatus) -> Html:
    """What to do next, in words."""
    what = status.verdict.capitalize()
    if status.verdict == "ship" and status.winner:
        what = f"Ship {status.winner}"
    first, rest = status.words[:1], status.words[1:]
    return tag(
        "section",
        tag("h2", "What to do next", id="next", class_="over"),
        tag("p", what, class_="verdict"),
        *(tag("p", words, class_="lead") for words in first),
        tag("ul", *(tag("li", words) for words in rest)) if rest else None,
        aria_labelledby="next",
        class_=f"card hero {_TONES[status.verdict]}".strip(),
    )


def tiles(status: ExperimentStatus) -> Html:
    """The primary metric, the units, the sample ratio and the guardrails, one figure each."""
    return tag(
        "div",
        _primary_tile(status),
        _tile(
            "Units",
            count(sum(arm.units for arm in status.arms)),
            _lists(status),
        ),
        _srm_tile(status),
        _guardrail_tile(status),
        class_="tiles",
    )


def _tile(name: str, figure: str, text: str, tone: str = "") -> Html:
    return tag(
        "div",
        tag("p", name, class_="over"),
        tag("p", figure, class_="figure"),
        tag("p", text, class_="note"),
        class_=f"tile {tone}".strip(),
    )


def _lists(status: ExperimentStatus) -> str:
    if status.first is None or status.last is None:
        return "no list yet"
    lists = count(sum(arm.lists for arm in status.arms))
    return f"{lists} lists in {span(status.last - (status.started or status.first))}"


def _primary_tile(status: ExperimentStatus) -> Html:
    lifts = [one for one in status.lifts if one.role == "primary"]
    shown = next((one for one in lifts if one.arm == status.winner), lifts[0] if lifts else None)
    if shown is None:
        return _tile(status.primary, "unknown", "no arm to compare")
    effect, scale = shown_effect(shown)
    if effect is None:
        return _tile(f"{shown.metric}, {shown.arm}", "unknown", shown.why)
    bounds = interval(effect.always_low, effect.always_high, scale)
    tone = READINGS[shown.improvement][1]
    return _tile(
        f"{shown.metric}, {shown.arm}",
        lift(effect.estimate, scale),
        f"always valid: {bounds}",
        tone,
    )


def _srm_tile(status: ExperimentStatus) -> Html:
    srm = status.srm
    words = {True: "holds", False: "mismatch", None: "unknown"}[srm.ok]
    text = srm.why if srm.p is None else f"chi-square {number(srm.chi2)}, p {p_value(srm.p)}"
    return _tile("Sample ratio", words, text, {True: "good", False: "bad", None: ""}[srm.ok])


def _guardrail_tile(status: ExperimentStatus) -> Html:
    states = [one.state for one in status.guardrails]
    if not states:
        return _tile("Guardrails", "none", "the manifest names none")
    broken, unknown = states.count("broken"), states.count("unknown")
    if broken:
        return _tile("Guardrails", f"{broken} broken", f"of {len(states)}", "bad")
    figure = f"{len(states) - unknown} of {len(states)} hold"
    return _tile(
        "Guardrails",
        figure,
        f"{unknown} cannot be measured" if unknown else "none is broken",
        "warn" if unknown else "good",
    )

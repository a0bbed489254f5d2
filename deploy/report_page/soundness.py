"""Whether the figures can be believed, and what no arm may worsen."""

from __future__ import annotations

from deploy.analysis.status import ExperimentStatus, GuardrailStatus
from deploy.report_page.markup import Html, joined
from deploy.report_page.numbers import UNKNOWN, count, lift, number, p_value, points, share
from deploy.report_page.tables import chip, note, section, table

_STATES = {"ok": "good", "broken": "bad", "unknown": "warn"}
#: Guardrails that are no metric of feedback: milliseconds of the arm, and a difference of shares.
_LATENCY, _FALLBACKS = "latency_p99_ms", "fallback_share"


def guardrails(status: ExperimentStatus) -> Html:
    """Each guardrail in each treatment."""
    rows = (
        (
            one.metric,
            one.arm,
            chip(one.state, _STATES[one.state]),
            _worsening(one, one.value),
            _worsening(one, one.bound),
            _limit(one),
            one.why,
        )
        for one in status.guardrails
    )
    return section(
        "Guardrails",
        "guardrails",
        table(
            "What no treatment may worsen",
            ("Guardrail", "Arm", "State", ">Worsening", ">At least", ">Allowed", "Why"),
            rows,
        )
        if status.guardrails
        else note("The manifest names none."),
    )


def _worsening(one: GuardrailStatus, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if one.metric == _LATENCY:
        return f"{number(value, 3)} ms"
    return points(value) if one.metric == _FALLBACKS else lift(value, "relative")


def _limit(one: GuardrailStatus) -> str:
    if one.metric == _LATENCY:
        return f"{number(one.limit)} ms"
    return points(one.limit) if one.metric == _FALLBACKS else share(one.limit)


def sample_ratio(status: ExperimentStatus) -> Html:
    """Units by arm against the weights."""
    srm = status.srm
    words, tone = {
        True: ("no mismatch", "good"),
        False: ("mismatch", "bad"),
        None: ("unknown", "warn"),
    }[srm.ok]
    total = sum(srm.observed.values()) or 1
    rows = (
        (
            arm,
            count(seen),
            count(srm.expected.get(arm, 0.0)),
            share(seen / total),
            lift(seen / srm.expected[arm] - 1, "relative") if srm.expected.get(arm) else UNKNOWN,
        )
        for arm, seen in srm.observed.items()
    )
    degrees = f"{srm.degrees} degree{'' if srm.degrees == 1 else 's'} of freedom"
    test = f"Chi-square {number(srm.chi2)} with {degrees}, p {p_value(srm.p)}. "
    return section(
        "Sample ratio",
        "sample-ratio",
        note(
            chip(words, tone),
            " ",
            test if srm.p is not None else None,
            srm.why if srm.ok is not True else None,
        ),
        table(
            "Units by arm",
            ("Arm", ">Seen", ">Expected", ">Share", ">Difference"),
            rows,
        ),
        _left_out(status),
    )


def _left_out(status: ExperimentStatus) -> Html:
    left = status.left_out
    reasons = {
        f"lists of {count(left.crossed_units)} units seen in two arms "
        f"({share(left.crossed_share)} of units)": left.crossed_lists,
        "lists from before the start": left.before,
        "lists from the future: a clock is wrong": left.future,
        "lists in the minute after a change of weights": left.settling,
        "lists with an arm that the manifest does not name": left.unknown_arm,
        "feedback values that are no number": left.bad_values,
    }
    told = [f"{count(number)} {words}" for words, number in reasons.items() if number]
    if left.crossed_units and not left.crossed_lists:
        told.append(f"{count(left.crossed_units)} units seen in two arms")
    return joined(note("Not counted: ", "; ".join(told) if told else "nothing", "."))

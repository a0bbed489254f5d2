"""What the figures mean, in words, and what to do next.

In this order, the first that holds: a broken guardrail rolls back; a sample-ratio mismatch stops,
for no figure can be believed; too few units wait; a primary metric shown to be worse rolls back,
one shown to be better ships, or waits for a guardrail that nobody measures; an interval that leaves
no room for the smallest effect that matters, or the end of the time given, stops.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.experiments import Experiment
from deploy.analysis.shown import shown_effect
from deploy.analysis.status import (
    ArmStatus,
    Effect,
    GuardrailStatus,
    LeftOut,
    Lift,
    Srm,
    Verdict,
)

#: A share of units in two arms from which on it is said.
CROSSED_SHARE = 0.01
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Judged:
    """A verdict, the arm to ship if it is that, and the sentences."""

    verdict: Verdict
    winner: str | None
    words: tuple[str, ...]


def decide(
    experiment: Experiment,
    *,
    arms: tuple[ArmStatus, ...],
    lifts: tuple[Lift, ...],
    srm: Srm,
    guardrails: tuple[GuardrailStatus, ...],
    left_out: LeftOut,
    started: int | None,
    now: int,
) -> Judged:
    """The verdict; its reason comes first, then what else should be known."""
    primary = tuple(lift for lift in lifts if lift.role == "primary")
    verdict, winner, reason = _reason(experiment, arms, primary, srm, guardrails, started, now)
    if experiment.state == "stopped":
        over = f"{experiment.name} has stopped, so there is nothing left to do."
        reason = (*(word for word in reason if not word.startswith("Next:")), over)
    notes = [_lift_words(lift) for lift in primary]
    if srm.ok is False and verdict != "stop":
        notes.append(f"Sample-ratio mismatch: {srm.why}; find its cause before you believe a lift.")
    notes += [
        f"Guardrail {one.metric} of {one.arm} is not measured: {one.why}."
        for one in guardrails
        if one.state == "unknown"
    ]
    notes += _left_out_words(left_out)
    if winner is not None:
        notes += [
            f"{lift.metric} of {winner} is worse: look before you ship."
            for lift in lifts
            if lift.role == "secondary" and lift.arm == winner and lift.improvement == "worse"
        ]
    return Judged(verdict, winner, (*reason, *notes))


def _reason(
    experiment: Experiment,
    arms: tuple[ArmStatus, ...],
    primary: tuple[Lift, ...],
    srm: Srm,
    guardrails: tuple[GuardrailStatus, ...],
    started: int | None,
    now: int,
) -> tuple[Verdict, str | None, tuple[str, ...]]:
    name, stopping = experiment.name, experiment.stopping
    if started is None:
        return "wait", None, (f"{name} has not started: python deploy/rollout.py start {name}.",)
    if broken := [one for one in guardrails if one.state == "broken"]:
        words = tuple(
            f"Guardrail {one.metric} of {one.arm} is broken: {one.why}." for one in broken
        )
        return "roll back", None, (*words, f"Next: python deploy/rollout.py rollback {name}.")
    if srm.ok is False:
        return "stop", None, (
            f"Sample-ratio mismatch: {srm.why}. Lists of an arm are lost or doubled, so no figure "
            "here can be believed.",
            "Next: find where the exposures of that arm get lost (fallbacks, dead letters, clients "
            "on an old routing), mend it, and start again with a new salt.",
        )  # fmt: skip
    if empty := [arm.name for arm in arms if not arm.units and arm.weight > 0]:
        return "wait", None, (
            f"No lists of {' and '.join(empty)} yet.",
            "Next: if traffic flows, check that clients follow routing.json and that the consumer "
            "writes to this table.",
        )  # fmt: skip
    if fewest := [arm for arm in arms if arm.units < stopping.min_units and arm.weight > 0]:
        least = min(fewest, key=lambda arm: arm.units)
        return "wait", None, (
            f"{least.name} has {least.units} units of the {stopping.min_units} that the stopping "
            "rule asks for.",
            "Next: wait, or ramp.",
        )  # fmt: skip
    if experiment.aa:
        return _aa(name, primary)
    if worse := [lift for lift in primary if lift.improvement == "worse"]:
        words = tuple(f"{lift.metric} of {lift.arm} is worse than the control's." for lift in worse)
        return "roll back", None, (*words, f"Next: python deploy/rollout.py rollback {name}.")
    better = [lift for lift in primary if lift.improvement == "better"]
    if better:
        best = max(better, key=lambda lift: abs(_effect(lift).estimate))
        unknown = [
            one.metric for one in guardrails if one.state == "unknown" and one.arm == best.arm
        ]
        if unknown:
            return "wait", None, (
                f"{best.metric} of {best.arm} is better, but guardrail {' and '.join(unknown)} is "
                "not measured.",
                "Next: give what it needs (for latency: --prometheus), and look again.",
            )  # fmt: skip
        return "ship", best.arm, (
            f"{best.metric} of {best.arm} is better than the control's; no guardrail is broken.",
            f"Next: python deploy/rollout.py promote {name}"
            + (f" --arm {best.arm}." if len(experiment.treatments) > 1 else "."),
        )  # fmt: skip
    if primary and all(_is_futile(lift, stopping.mde) for lift in primary):
        return "stop", None, (
            f"No arm can be better than the control by {stopping.mde:.2%}, the smallest effect "
            "that matters.",
            f"Next: python deploy/rollout.py rollback {name}; the champion stays.",
        )  # fmt: skip
    if (now - started) / DAY_MS >= stopping.max_days:
        return "stop", None, (
            f"The {stopping.max_days} days are over without an effect that could be shown.",
            f"Next: python deploy/rollout.py rollback {name}; the champion stays.",
        )  # fmt: skip
    return (
        "wait",
        None,
        (
            "No difference is shown yet.",
            "Next: wait; you may look whenever you like.",
        ),
    )


def _aa(name: str, primary: tuple[Lift, ...]) -> tuple[Verdict, str | None, tuple[str, ...]]:
    if any(lift.improvement != "undecided" for lift in primary):
        return "stop", None, (
            "This is an A/A test, and it shows a difference that cannot be.",
            "Next: find what tells the arms apart (assignment, logging, caches) before any A/B; "
            "one such alarm in 1 / alpha tests is chance.",
        )  # fmt: skip
    return (
        "wait",
        None,
        (
            "This is an A/A test, and it shows no difference, as it should.",
            f"Next: python deploy/rollout.py rollback {name} when it has run as long as you wish.",
        ),
    )


def _effect(lift: Lift) -> Effect:
    effect = lift.relative or lift.absolute
    assert effect is not None
    return effect


def _is_futile(lift: Lift, mde: float) -> bool:
    if lift.relative is None:
        return False
    low, high = lift.relative.always_low, lift.relative.always_high
    return high < mde if lift.better == "higher" else low > -mde


def _lift_words(lift: Lift) -> str:
    if lift.absolute is None:
        return f"{lift.metric} of {lift.arm}: nothing to say, {lift.why}."
    effect, scale = shown_effect(lift)
    assert effect is not None
    if scale == "relative":
        figures = (
            f"{effect.estimate:+.2%} ({effect.always_low:+.2%} to {effect.always_high:+.2%}, "
            "always valid)"
        )
    else:
        figures = (
            f"{effect.estimate:+.4g} ({effect.always_low:+.4g} to {effect.always_high:+.4g}, "
            f"always valid; absolute{f', for {lift.why}' if lift.why else ''})"
        )
    return f"{lift.metric} of {lift.arm} against the control: {figures}."


def _left_out_words(left_out: LeftOut) -> list[str]:
    words = []
    if left_out.crossed_share > CROSSED_SHARE:
        words.append(
            f"{left_out.crossed_units} units ({left_out.crossed_share:.1%}) were in two arms and "
            "are left out; is the history of weights known, and do all clients follow one routing?"
        )
    if left_out.future or left_out.before:
        words.append(
            f"{left_out.future} lists come from the future and {left_out.before} from before the "
            "start, and are left out: check the clocks of the ranking servers."
        )
    if left_out.unknown_arm:
        words.append(
            f"{left_out.unknown_arm} lists name an arm that the manifest has not, and are left out."
        )
    if left_out.bad_values:
        words.append(
            f"{left_out.bad_values} feedback values are no finite numbers up to 1e12 and count as "
            "nothing."
        )
    return words

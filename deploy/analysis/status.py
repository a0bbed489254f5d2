"""What ``rollout.py status`` says of an experiment: typed, and JSON as it stands.

Times are milliseconds since the epoch, UTC. Shares and relative lifts are fractions (0.02 is 2 %).
What cannot be said is null, never NaN, and a sentence beside it says why.
"""

from __future__ import annotations

from typing import Literal

from contracts.reading import Strict

Verdict = Literal["wait", "ship", "stop", "roll back"]
Scale = Literal["relative", "absolute"]


class Stage(Strict, kw_only=True, frozen=True):
    """A time in which the weights of the arms did not change: from a start or a ramp to the next.

    Attributes:
        since: when the weights came into force, in ms; the stage ends where the next begins.
        weights: of each arm by name; they sum to 1.
    """

    since: int
    weights: dict[str, float]


class ArmMetric(Strict, kw_only=True, frozen=True):
    """A metric in one arm, with the fixed-horizon interval of its mean (1 - alpha).

    Attributes:
        mean: sum of feedback by shown lists or items, over all of the arm's lists; null without
            any. low, high: null too where fewer than two units tell.
    """

    metric: str
    mean: float | None
    low: float | None
    high: float | None


class ArmStatus(Strict, kw_only=True, frozen=True):
    """One arm. ``weight`` is the one in force; ``units`` and ``lists`` are those counted.

    Attributes:
        fallback_share: of its lists, those that show the given order; null without lists.
        latency_p99_ms: of the rerank call, from Prometheus; null without.
    """

    name: str
    release: str
    weight: float
    is_control: bool
    units: int
    lists: int
    fallback_share: float | None
    latency_p99_ms: float | None
    metrics: tuple[ArmMetric, ...]


class Point(Strict, kw_only=True, frozen=True):
    """One look: the estimate and its always-valid interval with the lists shown before ``time``."""

    time: int
    estimate: float
    low: float
    high: float


class Effect(Strict, kw_only=True, frozen=True):
    """The difference of an arm to the control on one scale.

    Attributes:
        low, high, p: of the fixed-horizon test: right for one look at a time chosen beforehand.
        always_low, always_high: of the always-valid sequence, as of now: right at any look.
        sequence: the looks so far, oldest first; the last one is now.
    """

    estimate: float
    low: float
    high: float
    p: float
    always_low: float
    always_high: float
    sequence: tuple[Point, ...]


class Cuped(Strict, kw_only=True, frozen=True):
    """Whether the effect is adjusted by what the same units did before the experiment.

    Attributes:
        variance_reduction: 1 - adjusted variance / unadjusted, of the difference; null if not used.
        units_with_history: of the units counted in the two arms.
        unadjusted: the absolute effect without the adjustment (its sequence left empty); null if
            not used.
        why: in words, used or not.
    """

    used: bool
    variance_reduction: float | None
    units_with_history: int
    unadjusted: Effect | None
    why: str


class Lift(Strict, kw_only=True, frozen=True):
    """A metric of one arm against the control.

    Attributes:
        better: which way the metric should go.
        absolute: null where an arm has fewer than two units.
        relative: to the control's mean; null also where that is not clearly above zero.
        improvement: what the always-valid sequence shows: better, worse, or nothing yet.
        why: why something is null; "" if nothing is.
    """

    metric: str
    arm: str
    role: Literal["primary", "secondary"]
    better: Literal["higher", "lower"]
    absolute: Effect | None
    relative: Effect | None
    improvement: Literal["better", "worse", "undecided"]
    cuped: Cuped
    why: str


class Srm(Strict, kw_only=True, frozen=True):
    """Sample-ratio mismatch: units by arm against the weights, when each unit was first seen.

    Attributes:
        observed, expected: units by arm, summed over the stages.
        ok: false where p < 0.001: the arms did not get the units that they should have, and no
            other figure of the experiment can be believed. Null where there are too few units.
    """

    chi2: float | None
    degrees: int
    p: float | None
    ok: bool | None
    observed: dict[str, int]
    expected: dict[str, float]
    why: str


class LeftOut(Strict, kw_only=True, frozen=True):
    """Rows that belong to the experiment by label, and were not counted.

    Attributes:
        crossed_units: units seen in two arms of one stage; none of their lists is counted.
        crossed_share: of the units seen.
        crossed_lists: lists of those units.
        before: lists with a time before the start. future: after now, beyond the tolerance.
        settling: lists in the minute after a change of weights, when clients still switch.
        unknown_arm: lists with an arm that the manifest does not name.
        bad_values: feedback values that are no finite number up to 1e12; lists count without them.
    """

    crossed_units: int = 0
    crossed_share: float = 0.0
    crossed_lists: int = 0
    before: int = 0
    future: int = 0
    settling: int = 0
    unknown_arm: int = 0
    bad_values: int = 0


class GuardrailStatus(Strict, kw_only=True, frozen=True):
    """One guardrail in one arm.

    Attributes:
        value: the worsening against the control: relative, or ms for latency_p99_ms, or a
            difference of shares where the control's is zero; positive is worse.
        bound: the worsening is at least this, at any look, but for one experiment in 1/alpha.
        limit: the worsening allowed.
        state: broken only where ``bound`` is over the limit, unknown where nothing is measured.
        why: in words.
    """

    metric: str
    arm: str
    value: float | None
    bound: float | None
    limit: float
    state: Literal["ok", "broken", "unknown"]
    why: str


class Segment(Strict, kw_only=True, frozen=True):
    """The primary metric of one arm in a part of the units, as a help to look, not to decide.

    Attributes:
        segment, value: what parts them (surface, a user feature) and which part.
        low, high, p: fixed-horizon; ``p`` corrected for the number of segments (Holm).
    """

    segment: str
    value: str
    arm: str
    units: int
    scale: Scale
    estimate: float | None
    low: float | None
    high: float | None
    p: float | None


class Ancestor(Strict, kw_only=True, frozen=True):
    """A release in the lineage of the arms: from whom it was refreshed, and which arms serve it."""

    release: str
    parent: str | None
    created: str
    arms: tuple[str, ...]
    is_champion: bool


class ExperimentStatus(Strict, kw_only=True, frozen=True):
    """All that is known of an experiment at one time.

    Attributes:
        now: when the status was made. first, last: times of the first and last list counted.
        primary: name of the primary metric. alpha: of intervals and sequences.
        stages: as far as they are known, oldest first.
        lifts: primary first, by arm.
        winner: the arm to ship where the verdict is "ship", else null.
        words: what was found and what to do next, one sentence each, the verdict's reason first.
        lineage: of the releases served, the youngest first; empty where no store was given.
    """

    version: Literal[1] = 1
    name: str
    description: str
    state: str
    unit: str
    primary: str
    alpha: float
    started: int | None
    now: int
    first: int | None
    last: int | None
    table: str
    table_version: int
    stages: tuple[Stage, ...]
    arms: tuple[ArmStatus, ...]
    lifts: tuple[Lift, ...]
    srm: Srm
    left_out: LeftOut
    guardrails: tuple[GuardrailStatus, ...]
    segments: tuple[Segment, ...]
    verdict: Verdict
    winner: str | None
    words: tuple[str, ...]
    lineage: tuple[Ancestor, ...] = ()

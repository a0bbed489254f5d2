"""Gates on the slates themselves, before anything is trained: too few, or not what people do.

A poisoned batch (bots that click on everything or at random, feedback lost or turned round) shows
in how often, where and by whom feedback is given, compared with the slates that the champion was
trained on. What it cannot show there, feedback that is false but looks like people's, no gate on
the data alone can see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from contracts.releases import Gate
from training.data.facts import DataFacts
from training.refreshing.settings import DataGateSettings
from training.sources.table_slates import REPEATED

NO_REFERENCE = "not applicable: the champion's checkpoint says nothing of its training data"


def data_gates(
    facts: DataFacts | None,
    dropped: Counter[str],
    reference: DataFacts | None,
    settings: DataGateSettings,
) -> tuple[Gate, ...]:
    """All gates of a batch of slates.

    Args:
        facts: of the usable slates, None where there are none.
        dropped: rows that cannot be used, by reason.
        reference: of the slates that the champion was trained on, where it is known.
    """
    slates = facts.slates if facts else 0
    rows = max(1, slates + sum(dropped.values()))
    repeated = dropped.get(REPEATED, 0)
    unusable = sum(dropped.values()) - repeated
    reasons = "; ".join(f"{reason}: {n}" for reason, n in dropped.items())
    gates = [
        _least("data.slates", slates, settings.min_slates, "usable slates"),
        _most("data.dropped", unusable / rows, settings.max_dropped, reasons),
        _most("data.duplicates", repeated / rows, settings.max_duplicates, reasons),
    ]
    if facts is None:
        return tuple(gates)
    gates += [
        _least("data.users", facts.users, settings.min_users, "users"),
        _least(
            "data.feedback", facts.with_utility, settings.min_with_utility, "slates with U above 0"
        ),
        _most(
            "data.one_user",
            facts.largest_user_share,
            settings.max_user_share,
            "largest share of all U that one user gave",
        ),
        _most("data.fallbacks", facts.fallbacks, settings.max_fallbacks, "slates by a fallback"),
        *_compared(facts, reference, settings),
    ]
    return tuple(gates)


def _compared(
    facts: DataFacts, reference: DataFacts | None, settings: DataGateSettings
) -> Iterator[Gate]:
    base = reference.saturated if reference else 0.0
    yield _most(
        "data.saturated",
        facts.saturated,
        base + settings.max_saturated,
        f"lists with U on every item; the reference has {base:.4f}",
    )
    if reference is None:
        yield Gate(name="data.rates", passed=True, value=1.0, limit=0.0, detail=NO_REFERENCE)
        yield Gate(name="data.positions", passed=True, value=0.0, limit=1.0, detail=NO_REFERENCE)
        return
    for kind, before in reference.rates.items():
        if before < settings.min_rate or kind not in facts.rates:
            continue
        limit, now = settings.rate_ratio.get(kind, settings.max_rate_ratio), facts.rates[kind]
        # The larger over the smaller; a kind that has stopped altogether has no ratio.
        ratio = max(now / before, before / now) if now > 0 else 1e9
        yield _most(
            f"data.rate.{kind}", ratio, limit, f"{now:.4f} a shown item, {before:.4f} before"
        )
    yield _positions(facts, reference, settings.max_position_shift)


def _positions(facts: DataFacts, reference: DataFacts, limit: float) -> Gate:
    """Total variation distance between the shares of U by position."""
    ours, theirs = facts.positions, reference.positions
    if not ours or not theirs:
        detail = "not applicable: no U to compare"
        return Gate(name="data.positions", passed=True, value=0.0, limit=limit, detail=detail)
    width = max(len(ours), len(theirs))
    pad = [(*one, *(0.0,) * (width - len(one))) for one in (ours, theirs)]
    shift = sum(abs(a - b) for a, b in zip(*pad)) / 2
    first = f"{ours[0]:.3f} of U at the first position, {theirs[0]:.3f} before"
    return _most("data.positions", shift, limit, first)


def _least(name: str, value: float, limit: float, detail: str) -> Gate:
    return Gate(name=name, passed=value >= limit, value=value, limit=limit, detail=detail)


def _most(name: str, value: float, limit: float, detail: str) -> Gate:
    return Gate(name=name, passed=value <= limit, value=value, limit=limit, detail=detail)

"""The primary metric in parts of the traffic: to look for where an effect comes from.

Many parts are many chances of a false alarm, so the p-values are corrected for their number (Holm
1979), and none of them decides anything. A unit that is in several parts (surfaces) is in each with
the lists it had there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from contracts.experiments import Experiment
from contracts.multiplicity import holm
from deploy.analysis.fixed import interval, p_value
from deploy.analysis.lifts import columns_of, pair_of
from deploy.analysis.ratio import Difference, compare
from deploy.analysis.status import Segment
from deploy.analysis.units import Bools, UnitTotals

#: The parts with the most lists that are shown.
MAX_PARTS = 20


def segment_effects(
    experiment: Experiment,
    kinds: tuple[str, ...],
    segment: str,
    parts: Mapping[str, UnitTotals],
    crossed: Bools,
) -> tuple[Segment, ...]:
    """The effect of each arm in each part, the largest parts first; none for a single part.

    Args:
        crossed: units by number that count nowhere, for they were in two arms.
    """
    if len(parts) < 2:
        return ()
    top, bottom = columns_of(experiment.primary, kinds)
    largest = sorted(parts, key=lambda name: (-parts[name].rows.sums[:, 0].sum(), name))
    rows: list[tuple[str, str, int, Difference | None, Literal["relative", "absolute"]]] = []
    for name in largest[:MAX_PARTS]:
        counted = parts[name].rows
        counted = counted.at(~crossed[counted.unit])
        for number, arm in enumerate(experiment.treatments, start=1):
            pair = pair_of(counted, number)
            sums = pair.rows.sums
            found = compare(pair.arms, sums[:, top], sums[:, bottom]) if len(sums) else None
            effect = None if found is None else found[1] or found[0]
            scale: Literal["relative", "absolute"] = (
                "relative" if found is not None and found[1] is not None else "absolute"
            )
            if effect is not None and not effect.variance > 0:
                effect = None
            rows.append((name, arm.name, len(pair.numbers), effect, scale))
    corrected = iter(holm([p_value(effect) for *_, effect, _ in rows if effect is not None]))
    shown = []
    for name, arm_name, units, effect, scale in rows:
        low, high = (None, None) if effect is None else interval(effect, experiment.stopping.alpha)
        shown.append(
            Segment(
                segment=segment,
                value=name,
                arm=arm_name,
                units=units,
                scale=scale,
                estimate=None if effect is None else effect.value,
                low=low,
                high=high,
                p=None if effect is None else next(corrected),
            )
        )
    return tuple(shown)

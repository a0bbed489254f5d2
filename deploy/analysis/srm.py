"""Sample-ratio mismatch: did the arms get the units that their weights promise?

Pearson's chi-square over units, p < 0.001 (Fabijan et al. 2019, "Diagnosing Sample Ratio Mismatch
in Online Controlled Experiments"). Where lists of an arm are lost the comparison is of unlike
groups, and no other figure can be believed.

Weights change by ramps, so totals say nothing against the weights of today: a unit counts in the
stage in which the experiment first saw it, against the weights of that stage, and the chi-squares
of the stages add up, as do their degrees of freedom. Later stages of a unit do not count: whether
it comes back may be an effect of its arm. So is how often it comes; hence units, not lists.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from deploy.analysis.status import Srm
from deploy.analysis.units import Ints

#: Below this p the units are said not to match.
LIMIT = 0.001
#: A stage with fewer expected units in an arm is left to the next look (Cochran's rule).
MIN_EXPECTED = 5


def unit_counts(first_stage: Ints, first_arm: Ints, stages: int, arms: int) -> Ints:
    """Units by the stage and the arm in which they were first seen [stages, arms]."""
    seen = first_arm >= 0
    cell = first_stage[seen] * arms + first_arm[seen]
    counts: Ints = np.bincount(cell, minlength=stages * arms).reshape(stages, arms)
    return counts


def check_ratio(counts: Ints, weights: npt.NDArray[np.float64], arms: Sequence[str]) -> Srm:
    """Judge units by arm [stages, arms] against weights [stages, arms] whose rows sum to 1."""
    expected = counts.sum(axis=1, keepdims=True) * weights
    observed_by = dict(zip(arms, counts.sum(axis=0).tolist()))
    expected_by = dict(zip(arms, expected.sum(axis=0).tolist()))

    def result(chi2: float | None, degrees: int, p: float | None, ok: bool | None, why: str) -> Srm:
        return Srm(chi2=chi2, degrees=degrees, p=p, ok=ok, observed=observed_by,
                   expected=expected_by, why=why)  # fmt: skip

    unwanted = (weights == 0) & (counts > 0)
    if unwanted.any():
        stage, arm = np.argwhere(unwanted)[0].tolist()
        why = f"{counts[stage, arm]} units were in {arms[arm]} when its weight was 0"
        return result(None, 0, 0.0, False, why)
    chi2, degrees = 0.0, 0
    for row, wanted, shares in zip(counts, expected, weights):
        in_force = shares > 0
        if in_force.sum() < 2 or wanted[in_force].min() < MIN_EXPECTED:
            continue
        chi2 += float(((row - wanted)[in_force] ** 2 / wanted[in_force]).sum())
        degrees += int(in_force.sum()) - 1
    if not degrees:
        return result(None, 0, None, None, "too few units for a test")
    p = float(stats.chi2.sf(chi2, degrees))
    if p >= LIMIT:
        return result(chi2, degrees, p, True, f"p is {p:.3g}, at least {LIMIT}")
    off = {name: observed_by[name] / expected_by[name] - 1 for name in arms if expected_by[name]}
    worst = max(off, key=lambda name: abs(off[name]))
    why = (
        f"p is {p:.2g}, below {LIMIT}; {worst} has {off[worst]:+.2%} units of what its weight says"
    )
    return result(chi2, degrees, p, False, why)

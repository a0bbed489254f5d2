"""CUPED: an effect with the part taken out that the units' past explains.

Deng, Xu, Kohavi and Walker 2013, "Improving the Sensitivity of Online Controlled Experiments by
Utilizing Pre-Experiment Data": Y_cv = Y - theta (X - E X), theta = cov(Y, X) / var(X), and the
variance falls by the square of their correlation. Here Y is a difference of arms as a sum of
influences, and X the same difference of what the units did before, whose expectation is zero for
arms were dealt without regard to it. So theta is the regression of the one influence on the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from deploy.analysis.ratio import Difference, TwoArms, compare, stage_shares

Floats = npt.NDArray[np.float64]


def covariate(sums: Floats, sizes: Floats) -> Floats:
    """What each unit did before, beyond its share: S_i - R N_i [U]; 0 for one without history.

    The metric is a ratio, so its past is linearised like its present (Budylin et al. 2018,
    "Consistent Transformation of Ratio Metrics for Efficient Online Controlled Experiments").
    """
    total = float(sizes.sum())
    if not total > 0:
        return np.zeros(len(sums))
    past: Floats = sums - float(sums.sum()) / total * sizes
    return past


def imbalance(arms: TwoArms, past: Floats, sizes: Floats) -> Difference | None:
    """How the arms differ in the past, by stages as ``compare`` weighs them; None: no variance.

    Args:
        past: covariate of each row's unit [rows]; sizes: N of the rows as in ``compare`` [rows].
    """
    if not len(past) or float(past.max()) == float(past.min()):
        return None
    found = compare(arms, past, np.ones(len(past)), stage_shares(arms, sizes))
    return found[0] if found is not None and found[0].variance > 0 else None


def adjust(effect: Difference, past: Difference) -> Difference:
    """The effect less what the past explains; its variance is that of the regression's residuals.

    Theta costs a degree of freedom, nothing among hundreds of units.
    """
    theta = float(effect.influence @ past.influence) / past.variance
    return replace(
        effect,
        value=effect.value - theta * past.value,
        influence=effect.influence - theta * past.influence,
        degrees=effect.degrees - 1,
    )


def adjust_relative(
    relative: Difference, absolute: Difference, adjusted: Difference, past: Difference
) -> Difference:
    """The relative effect, of the adjusted difference and the adjusted mean of the control.

    To the first order this is ``adjust(relative, past)``; so its sign is that of the absolute
    effect too. The control's mean moves by its part of theta X, the arm's by the rest.
    """
    control, arm = absolute.units
    moved = (absolute.value - adjusted.value) * arm / (control + arm)
    return replace(adjust(relative, past), value=adjusted.value / (absolute.means[0] + moved))


def variance_reduction(effect: Difference, adjusted: Difference) -> float:
    """By which part the variance fell: rho^2."""
    return 1 - adjusted.variance / effect.variance if effect.variance > 0 else 0.0

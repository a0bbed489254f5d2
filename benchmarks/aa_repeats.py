"""Many experiments: users drawn and dealt anew each time, looked at every hour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.aa_world import Population
from contracts.assignment import assign_many
from contracts.experiment_metrics import Metric, StoppingRule
from contracts.experiments import Arm, Experiment
from deploy.analysis import cuped, fixed, sequences
from deploy.analysis.ratio import Difference, TwoArms, compare
from deploy.analysis.srm import LIMIT, check_ratio

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Repeats:
    """R repeats at K looks; NaN before there are enough units.

    Attributes:
        estimate, deviation: relative lift and its standard error [R, K].
        half: half-width of the always-valid sequence [R, K].
        p: of the fixed-horizon test [R, K].
        ratio_p: of the sample-ratio test at the last look [R]; ratio_alarm: at any look [R].
    """

    estimate: Floats
    deviation: Floats
    half: Floats
    p: Floats
    ratio_p: Floats
    ratio_alarm: Bools

    def alarms_by_sequence(self, truth: float | Floats = 0.0) -> Bools:
        """Whether the sequence has left out ``truth`` (one, or by look [K]) by each look [R, K]."""
        out = np.abs(self.estimate - truth) > self.half
        return np.asarray(np.logical_or.accumulate(out, axis=1))

    def alarms_by_peeking(self, alpha: float) -> Bools:
        """Whether the fixed-horizon test has been below alpha at any look so far [R, K]."""
        return np.asarray(np.logical_or.accumulate(self.p < alpha, axis=1))


def manifest(salt: str, alpha: float, mde: float, weight: float) -> Experiment:
    """An A/A experiment; only the salt differs between repeats."""
    return Experiment(
        name="aa",
        salt=salt,
        aa=True,
        arms=(
            Arm(name="control", release="champion", weight=round(1 - weight, 4)),
            Arm(name="same", release="champion", weight=weight),
        ),
        primary=Metric(name="clicks", kind="click"),
        stopping=StoppingRule(alpha=alpha, mde=mde),
    )


def run(
    population: Population,
    repeats: int,
    *,
    alpha: float = 0.05,
    mde: float = 0.02,
    weight: float = 0.5,
    use_past: bool = False,
    salt: str = "aa",
    done: Callable[[], object] = lambda: None,
) -> Repeats:
    """Draw users, deal them by ``contracts/assignment.py`` with a salt for each repeat, and look.

    Args:
        use_past: CUPED with what users did before the start.
        done: called after each repeat.
    """
    looks = population.lists.shape[1]
    shape = (repeats, looks)
    found = {name: np.full(shape, np.nan) for name in ("estimate", "deviation", "half", "p")}
    ratio_p, ratio_alarm = np.full(repeats, np.nan), np.zeros(repeats, bool)
    weights = np.array([[1 - weight, weight]])
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, *salt.encode()])
        rows = rng.integers(0, len(population.names), len(population.names))
        users = population.drawn(rows, f"{salt}-{repeat}")
        experiment = manifest(f"{salt}-{repeat}", alpha, mde, weight)
        treated = assign_many(experiment, users.names) == 1
        first = np.argmax(users.lists > 0, axis=1)
        seen = users.lists[:, -1] > 0
        for look, effect in _looks(users, treated, use_past):
            half = sequences.half_width(effect.variance, mde, alpha)
            found["estimate"][repeat, look] = effect.value
            found["deviation"][repeat, look] = np.sqrt(effect.variance)
            found["half"][repeat, look] = half
            found["p"][repeat, look] = fixed.p_value(effect)
            here = seen & (first <= look)
            counts = np.array([[(here & ~treated).sum(), (here & treated).sum()]])
            ratio = check_ratio(counts, weights, ("control", "same")).p
            if ratio is not None:
                ratio_p[repeat] = ratio
                ratio_alarm[repeat] |= ratio < LIMIT
        done()
    return Repeats(**found, ratio_p=ratio_p, ratio_alarm=ratio_alarm)


def _looks(
    population: Population, treated: Bools, use_past: bool
) -> Iterator[tuple[int, Difference]]:
    """Each look's relative effect, where there are enough units for one."""
    earned = np.where(treated[:, None], population.earned[1], population.earned[0])
    past = cuped.covariate(population.past, population.past_lists)
    for look in range(population.lists.shape[1]):
        rows = np.flatnonzero(population.lists[:, look] > 0)
        arms = TwoArms(rows, np.zeros(len(rows), np.int64), treated[rows])
        sizes = population.lists[rows, look]
        absolute, effect = compare(arms, earned[rows, look], sizes) or (None, None)
        if absolute is None or effect is None or min(absolute.units) < sequences.MIN_UNITS:
            continue
        before = cuped.imbalance(arms, past[rows], sizes) if use_past else None
        if before is not None:
            adjusted = cuped.adjust(absolute, before)
            effect = cuped.adjust_relative(effect, absolute, adjusted, before)
        yield look, effect


def upper_bound(repeats: int, alpha: float, confidence: float = 0.999) -> int:
    """As many alarms as chance allows where each repeat alarms with probability alpha."""
    return int(stats.binom.ppf(confidence, repeats, alpha))


def lost_assignments(*, repeats: int, users: int, share: float, seed: int) -> dict[str, int]:
    """How often the sample-ratio test sees that a share of one arm's units got lost.

    Units are dealt by ``contracts/assignment.py``; each of the arm's is lost with that probability.
    """
    rng = np.random.default_rng([seed, 23])
    alarms = {0.0: 0, share: 0}
    names = [f"u{number}" for number in range(users)]
    for repeat in range(repeats):
        treated = assign_many(manifest(f"srm{seed}-{repeat}", 0.05, 0.02, 0.5), names) == 1
        for lost in alarms:
            kept = treated & (rng.random(users) >= lost) if lost else treated
            counts = np.array([[(~treated).sum(), kept.sum()]])
            alarms[lost] += check_ratio(counts, np.array([[0.5, 0.5]]), ("a", "b")).ok is False
    return {
        "repeats": repeats,
        "users": users,
        "alarms": alarms[share],
        "alarms without loss": alarms[0.0],
    }

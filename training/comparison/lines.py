"""A method's line in a case's table, from stored rows alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import mean

import msgspec

from contracts.multiplicity import holm
from contracts.reading import Strict
from training.comparison.finals import latest, tried
from training.comparison.gref import saw_pairs
from training.comparison.pairing import Drawn, draw
from training.comparison.store import Row, Store
from training.evaluation.bootstrap import Interval

#: Of a difference that is called one.
LEVEL = 0.05
#: Metrics beside the primary one, where they are known.
BESIDE = ("true watch_time", "ndcg@10", "ndcg_shown@10", "auc", "gauc")


class Line(Strict, kw_only=True, frozen=True):
    """A method of a table; what is not known is None.

    Attributes:
        value: the primary metric, over users and seeds.
        lists, users: of the test lists that it is of.
        trials: among how many settings its own were chosen; 1 of the defaults.
        over_reference: its difference to the reference method, and p: two-sided, paired.
        p_holm: p corrected for the number of rivals (Holm), of a rival.
        over_given: its difference to the given order.
        control: that of the runs with shuffled feedback, control_seeds of them.
        one_seed: whether it, or what it is compared with, was trained once: nothing is known of
            other trainings, and no difference is called one.
        beside: other metrics, by name.
        alarms: of its runs. control_alarms: of those with shuffled feedback.
        epoch: the chosen one, mean over seeds.
        saw_pairs: of how many seeds the chosen epoch had seen preference pairs; None of what has
            none.
        codes: states of the code that its rows, and those of its control, are of.
        stale: whether these, or the slates, are not those of now.
    """

    method: str
    seeds: int
    trials: int
    value: Interval
    lists: int = 0
    users: int = 0
    over_reference: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    over_given: Interval | None = None
    control: Interval | None = None
    control_seeds: int = 0
    one_seed: bool = False
    beside: dict[str, float] = msgspec.field(default_factory=dict)
    cpu_seconds: float = 0.0
    parameters: int = 0
    latency_ms: float | None = None
    latency_ratio: float | None = None
    epoch: float = 0.0
    saw_pairs: int | None = None
    alarms: tuple[str, ...] = ()
    control_alarms: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    stale: bool = False

    @property
    def differs(self) -> bool:
        """Whether its difference to the reference is called one: of a rival, after Holm."""
        p = self.p if self.p_holm is None else self.p_holm
        return p is not None and p < LEVEL and not self.one_seed


def lines_of(
    store: Store, rows: Sequence[Row], case: str, primary: str, methods: Sequence[str],
    reference: str, now: Mapping[str, tuple[str, str]] | None = None,
    rivals: Collection[str] = (),
) -> list[Line]:  # fmt: skip
    """A line for each method that has results, in the order asked for.

    All are of the same slates, lists of others do not pair: of those of now, or where there are no
    such, of those of the newest row of the case.

    Args:
        now: for each method the identity of the case's slates and the state of the code that its
            results are of now. None asks nothing.
        rivals: methods whose p are corrected for their number.
    """
    now = now or {}
    rows = [row for row in rows if row.case == case]
    current = {data for data, _ in now.values()}
    data = next((row.data for row in rows if row.data in current), rows[-1].data)
    rows = [row for row in rows if row.data == data]
    own_rows = {name: [row for row in rows if row.method == name] for name in methods}
    finals = {name: latest(own_rows[name], now=now.get(name)) for name in methods}
    drawn = {
        name: draw(store, own, primary)
        for name, own in finals.items()
        if own and primary in own[0].metrics
    }
    lines = [
        _line(store, own_rows[name], finals[name], primary, drawn, reference, now.get(name))
        for name in methods
        if name in drawn
    ]
    return corrected(lines, rivals)


def corrected(lines: Sequence[Line], rivals: Collection[str]) -> list[Line]:
    """The lines, with p of the rivals among them corrected for their number."""
    # Where no p is known nothing is shown, and it was asked all the same.
    known = {line.method: 1.0 if line.p is None else line.p for line in lines
             if line.method in rivals and line.over_reference}  # fmt: skip
    p_holm = dict(zip(known, holm(list(known.values()))))
    return [msgspec.structs.replace(line, p_holm=p_holm.get(line.method)) for line in lines]


def _line(
    store: Store, rows: Sequence[Row], finals: Sequence[Row], primary: str,
    drawn: dict[str, Drawn], reference: str, now: tuple[str, str] | None,
) -> Line:  # fmt: skip
    first = finals[0]
    name, own = first.method, drawn[first.method]
    # A control of other settings would say nothing of these.
    alike = [row for row in rows if row.settings == first.settings]
    controls = latest(alike, "shuffled", now)
    over, p = None, None
    if reference in drawn and name != reference:
        over, p = own.minus(drawn[reference])
    given = drawn.get("given")
    seen = [saw_pairs(row) for row in finals]
    return Line(
        method=name,
        seeds=len(finals),
        lists=first.lists,
        users=first.users,
        trials=tried(rows, finals),
        value=own.interval(),
        over_reference=over,
        p=p,
        over_given=own.minus(given)[0] if given and name != "given" else None,
        control=draw(store, controls, primary).minus(given)[0] if given and controls else None,
        control_seeds=len(controls),
        one_seed=len(finals) == 1 or (reference in drawn and len(drawn[reference].seeds) == 1),
        beside={
            metric: mean(row.metrics[metric].value for row in finals)
            for metric in BESIDE
            if metric != primary and all(metric in row.metrics for row in finals)
        },
        cpu_seconds=mean(row.cpu_seconds for row in finals),
        parameters=round(mean(row.parameters for row in finals)),
        latency_ms=_mean(row.latency_ms for row in finals),
        latency_ratio=_mean(row.latency_ratio for row in finals),
        epoch=mean(row.epoch for row in finals),
        saw_pairs=None if None in seen else sum(map(bool, seen)),
        alarms=_alarms(finals),
        control_alarms=_alarms(controls),
        codes=tuple(sorted({row.code for row in [*finals, *controls]})),
        stale=now is not None and {(row.data, row.code) for row in [*finals, *controls]} != {now},
    )


def _alarms(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({row.alarm for row in rows if row.alarm}))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None

"""Who gets which arm, and which request is explored: hashes, and nothing that must be remembered.

A unit falls into one of 1,000,000 buckets by its experiment's salt. Each treatment owns a region of
buckets as large as its ceiling and takes the first ones of it, as many as its weight says; all
other buckets are the control's. So a weight that grows moves units from the control to that arm, a
weight that shrinks moves them back, and nobody else moves. docs/experiments.md states it for
ranking servers written in other languages, with test vectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from contracts.experiments import GRAINS, Experiment, Exploration, ceilings
from contracts.routing import Routing

BUCKETS = 1_000_000
#: Buckets of one unit of weight.
_GRAIN = BUCKETS // GRAINS
#: Salts that no experiment can have, for a colon is not allowed there.
_EXPLORE, _SEED = ":explore", ":seed"

Ints = npt.NDArray[np.int64]


class Route(NamedTuple):
    """Where one request goes.

    Attributes:
        arm: "experiment/arm" of every experiment that the request takes part in, joined by ",", in
            the order of the names; "" outside of experiments.
        temperature: 0 is greedy.
        seed: of the draw, 64 bits, signed; 0 where nothing is drawn.
    """

    release: str
    arm: str
    temperature: float
    seed: int


class Router:
    """A routing, ready to be asked for every request. Immutable, so threads may share it."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self._deals = tuple(_Deal(one, routing) for one in routing.experiments)

    def route(self, surface: str, user: str, request_id: str) -> Route:
        """Release, arms and exploration of one request.

        A request without a unit (an empty user) takes part in no experiment of such units.

        Raises:
            AttributeError, TypeError: an id is no text.
        """
        release, exploration = self.routing.champion, self.routing.exploration
        label = ""
        for deal in self._deals:
            if deal.surfaces and surface not in deal.surfaces:
                continue
            unit = user if deal.by_user else request_id
            if not unit:  # all who have no id would be one unit, and skew the arm that gets it
                continue
            arm = deal.arms[_arm_at(deal.regions, bucket(deal.salt, unit))]
            label = f"{label},{arm.label}" if label else arm.label
            if deal.decides_release:
                release = arm.release
            if arm.exploration is not None:
                exploration = arm.exploration
        temperature = temperature_of(exploration, request_id)
        return Route(release, label, temperature, seed_of(request_id) if temperature else 0)


def route(routing: Routing, surface: str, user: str, request_id: str) -> Route:
    """``Router(routing).route(...)``, for whoever asks only once."""
    return Router(routing).route(surface, user, request_id)


def bucket(salt: str, unit: str) -> int:
    """The bucket of a unit: xxhash64 of the UTF-8 text "salt/unit" modulo 1,000,000."""
    return _hash(salt, unit) % BUCKETS


def assign(experiment: Experiment, unit: str) -> int:
    """The index of the arm that a unit gets; 0 is the control."""
    return _arm_at(_regions(experiment), bucket(experiment.salt, unit))


def assign_many(experiment: Experiment, units: Iterable[str]) -> Ints:
    """``assign`` of each unit, [units]; a million in about a quarter of a second."""
    prefix = f"{experiment.salt}/".encode()
    digest = xxhash.xxh64_intdigest
    hashes = (digest(prefix + unit.encode("utf-8", "surrogatepass")) for unit in units)
    buckets = (np.fromiter(hashes, np.uint64) % np.uint64(BUCKETS)).astype(np.int64)
    arms = np.zeros(len(buckets), np.int64)
    for index, (first, end) in enumerate(_regions(experiment), start=1):
        arms[(first <= buckets) & (buckets < end)] = index
    return arms


def temperature_of(exploration: Exploration | None, request_id: str) -> float:
    """The temperature of a request: 0 where it is not among those that are explored."""
    if exploration is None or not exploration.share:
        return 0.0
    chosen = bucket(_EXPLORE, request_id) < round(exploration.share * BUCKETS)
    return exploration.temperature if chosen else 0.0


def seed_of(request_id: str) -> int:
    """The seed of a request's draw: xxhash64 of ":seed/request_id" as a signed number."""
    value = _hash(_SEED, request_id)
    return value - (1 << 64) if value >> 63 else value


def arms_of(label: str) -> dict[str, str]:
    """The arm of each experiment in an exposure's ``arm``: {"experiment": "arm"}.

    What has another form (exposures of a client that was given an arm by hand) is left out.
    """
    pairs = (part.partition("/") for part in label.split(","))
    return {experiment: arm for experiment, slash, arm in pairs if experiment and slash and arm}


class _Arm(NamedTuple):
    label: str
    release: str
    exploration: Exploration | None


class _Deal:
    """An experiment as the request path needs it."""

    def __init__(self, experiment: Experiment, routing: Routing) -> None:
        self.salt, self.by_user = experiment.salt, experiment.unit == "user"
        self.surfaces = frozenset(experiment.surfaces)
        self.decides_release = experiment.decides_release
        self.regions = _regions(experiment)
        self.arms = tuple(
            _Arm(f"{experiment.name}/{arm.name}", routing.release_of(arm), arm.exploration)
            for arm in experiment.arms
        )


def _hash(salt: str, unit: str) -> int:
    # A lone surrogate is no UTF-8, but a request that has one is answered all the same.
    text = f"{salt}/{unit}".encode("utf-8", "surrogatepass")
    value: int = xxhash.xxh64_intdigest(text)
    return value


def _regions(experiment: Experiment) -> tuple[tuple[int, int], ...]:
    """The buckets of each treatment: the first, and the one after the last."""
    regions, start = [], 0
    for arm, ceiling in zip(experiment.treatments, ceilings(experiment)):
        regions.append((start, start + arm.weight_grains * _GRAIN))
        start += ceiling * _GRAIN
    return tuple(regions)


def _arm_at(regions: tuple[tuple[int, int], ...], at: int) -> int:
    for index, (first, end) in enumerate(regions, start=1):
        if first <= at < end:
            return index
    return 0

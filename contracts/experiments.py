"""The experiment manifest: ``deploy/experiments/<name>.yaml``, one file for each experiment.

docs/experiments.md is the reference, ``deploy/experiments/example.yaml`` a commented example. What
clients read is compiled from all of them (``contracts/routing.py``); who gets which arm is
``contracts/assignment.py``.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from pathlib import Path
from typing import Literal

from contracts.experiment_metrics import Guardrail, Metric, StoppingRule, check_name
from contracts.reading import ContractError, Strict, read_yaml
from contracts.releases import RELEASE_NAME

#: An arm whose release is this follows the champion.
CHAMPION = "champion"
#: Weights and ceilings are whole multiples of 1 / GRAINS.
GRAINS = 10_000

_SALT = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Exploration(Strict, kw_only=True, frozen=True):
    """Which requests get a list that is drawn, so that off-policy estimates are possible.

    Attributes:
        share: of requests, 0 to 1; a hash of the request's id decides.
        temperature: of the draw; the other requests are decoded greedily.
    """

    share: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; allowed: 0 to 1")
        if not 0 < self.temperature <= 100:
            raise ValueError(
                f"temperature is {self.temperature}; allowed: above 0, at most 100 "
                "(share: 0 explores nothing)"
            )


class Arm(Strict, kw_only=True, frozen=True):
    """One side of an experiment.

    Attributes:
        release: "champion", or a release by name.
        weight: share of units, a multiple of 0.0001.
        ceiling: the highest weight that this treatment may ever be ramped to, a multiple of
            0.0001; without it the treatments share equally what is left of 1. It fixes which units
            the arm may get, so a change of it moves units. The control has none.
        exploration: in place of the routing's; null keeps that.
    """

    name: str
    release: str
    weight: float
    ceiling: float | None = None
    exploration: Exploration | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if self.release != CHAMPION and not RELEASE_NAME.match(self.release):
            raise ValueError(
                f"release {self.release!r}; allowed: {CHAMPION}, or r and at least four digits"
            )
        grains("weight", self.weight)
        if self.ceiling is not None and grains("ceiling", self.ceiling) < self.weight_grains:
            raise ValueError(
                f"arm {self.name}: weight {self.weight:g} is above its ceiling {self.ceiling:g}"
            )

    @property
    def weight_grains(self) -> int:
        """The weight in units of 0.0001, exact."""
        return grains("weight", self.weight)


class Experiment(Strict, kw_only=True, frozen=True):
    """One experiment. Its first arm is the control; the others are treatments.

    Attributes:
        layer: experiments of one layer never share a surface; a request takes part in one
            experiment of each layer, and the layers' assignments are independent.
        surfaces: where it runs (``RerankRequest.surface``); empty: everywhere.
        unit: what is assigned to an arm: a user, for good, or each request by itself.
        salt: of the assignment; a new one deals all units anew.
        aa: an A/A test: all arms must be the same. Without it no two arms may be.
        started: ISO 8601 with its zone, set when it starts; a running experiment has it.
    """

    version: Literal[1] = 1
    name: str
    description: str = ""
    layer: str = "ranking"
    surfaces: tuple[str, ...] = ()
    unit: Literal["user", "request"] = "user"
    salt: str
    state: Literal["draft", "running", "stopped"] = "draft"
    aa: bool = False
    arms: tuple[Arm, ...]
    primary: Metric
    secondary: tuple[Metric, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    stopping: StoppingRule = StoppingRule()
    started: str | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("layer", self.layer)
        if not _SALT.fullmatch(self.salt):
            raise ValueError(
                f"salt {self.salt!r}; allowed: 1 to 64 letters, digits, and . _ - between them"
            )
        _check_surfaces(self.surfaces)
        _check_arms(self)
        _check_metrics(self)
        if self.started is not None:
            _check_time(self.started)
        elif self.state == "running":
            raise ValueError("started is missing; allowed: a running experiment says since when")

    @property
    def control(self) -> Arm:
        return self.arms[0]

    @property
    def treatments(self) -> tuple[Arm, ...]:
        return self.arms[1:]

    @property
    def decides_release(self) -> bool:
        """Whether its arms choose a release; else all of them follow the champion."""
        return any(arm.release != CHAMPION for arm in self.arms)

    @property
    def decides_exploration(self) -> bool:
        """Whether any arm has an exploration of its own."""
        return any(arm.exploration is not None for arm in self.arms)

    def covers(self, surface: str) -> bool:
        """Whether it runs on a surface."""
        return not self.surfaces or surface in self.surfaces

    def overlaps(self, other: Experiment) -> bool:
        """Whether there is a surface that both run on."""
        return not (
            self.surfaces and other.surfaces and set(self.surfaces).isdisjoint(other.surfaces)
        )


def grains(field: str, share: float) -> int:
    """A share in units of 0.0001; raises ValueError where it is no multiple of that."""
    whole = round(share * GRAINS) if math.isfinite(share) else -1
    if not 0 <= whole <= GRAINS or abs(share * GRAINS - whole) > 1e-6:
        raise ValueError(f"{field} is {share!r}; allowed: 0 to 1, a multiple of {1 / GRAINS:g}")
    return whole


def ceilings(experiment: Experiment) -> tuple[int, ...]:
    """The ceiling of each treatment in units of 0.0001, in the order of the arms.

    Treatments that state none share equally what those that do leave of 1.
    """
    stated = [
        None if a.ceiling is None else grains("ceiling", a.ceiling) for a in experiment.treatments
    ]
    left = GRAINS - sum(one for one in stated if one is not None)
    share = left // max(1, stated.count(None))
    return tuple(share if one is None else one for one in stated)


def read_experiment(path: str | Path) -> Experiment:
    """Read a manifest; the file is named after the experiment.

    Raises:
        ContractError: it cannot be read or breaks a rule; the message names the field and what is
            allowed.
    """
    path = Path(path)
    experiment = read_yaml(path, Experiment)
    if path.stem != experiment.name:
        raise ContractError(
            f"{path}: field name: {experiment.name}; allowed: {path.stem}, as the file is named"
        )
    return experiment


def read_experiments(folder: str | Path) -> dict[str, Experiment]:
    """Every manifest (``*.yaml``) of a folder by name, in the order of names.

    Raises:
        ContractError: there is no such folder, or one of them cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ContractError(f"{folder}: no such folder of experiments")
    found = (read_experiment(path) for path in sorted(folder.glob("*.yaml")))
    return {experiment.name: experiment for experiment in found}


def _check_surfaces(surfaces: tuple[str, ...]) -> None:
    for surface in surfaces:
        if not 1 <= len(surface) <= 256:
            raise ValueError(f"surfaces holds {surface!r}; allowed: 1 to 256 characters")
        if surfaces.count(surface) > 1:
            raise ValueError(f"surfaces holds {surface!r} twice")
        try:
            surface.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"surfaces holds {surface!r}, which is no text: {error}") from None


def _check_arms(experiment: Experiment) -> None:
    arms = experiment.arms
    if len(arms) < 2:
        raise ValueError(f"arms holds {len(arms)}; allowed: a control and at least one treatment")
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names):
        raise ValueError(f"arms hold the name {next(n for n in names if names.count(n) > 1)} twice")
    total = sum(arm.weight_grains for arm in arms)
    if total != GRAINS:
        raise ValueError(
            f"weights of arms sum to {total / GRAINS:g} ("
            + " + ".join(f"{arm.name} {arm.weight:g}" for arm in arms)
            + "); allowed: 1 exactly"
        )
    if experiment.control.ceiling is not None:
        raise ValueError(
            f"arm {experiment.control.name} is the control and states a ceiling; allowed: for "
            "treatments alone (the control is what they leave)"
        )
    limits = [arm.ceiling for arm in experiment.treatments if arm.ceiling is not None]
    if sum(grains("ceiling", limit) for limit in limits) > GRAINS:
        raise ValueError(f"ceilings of arms sum to {sum(limits):g}; allowed: at most 1")
    for arm, ceiling in zip(experiment.treatments, ceilings(experiment)):
        if arm.weight_grains > ceiling:
            raise ValueError(
                f"arm {arm.name}: weight {arm.weight:g} is above its ceiling "
                f"{ceiling / GRAINS:g} (an equal share of what is left); state ceilings"
            )
    _check_same(experiment)


def _check_same(experiment: Experiment) -> None:
    seen: dict[tuple[str, Exploration | None], str] = {}
    for arm in experiment.arms:
        what = (arm.release, arm.exploration)
        if what in seen and not experiment.aa:
            raise ValueError(
                f"arms {seen[what]} and {arm.name} are the same (release {arm.release}); allowed: "
                "in an A/A test (aa: true)"
            )
        seen.setdefault(what, arm.name)
    if experiment.aa and len(seen) > 1:
        raise ValueError(
            f"arms {' and '.join(list(seen.values())[:2])} differ; allowed in an A/A test "
            "(aa: true): one release and exploration for all arms"
        )


def _check_metrics(experiment: Experiment) -> None:
    guarded = [g.metric for g in experiment.guardrails if isinstance(g.metric, Metric)]
    known: dict[str, Metric] = {}
    for metric in (experiment.primary, *experiment.secondary, *guarded):
        if known.setdefault(metric.name, metric) != metric:
            raise ValueError(f"metric {metric.name} is defined twice, and differently")
    names = [metric.name for metric in (experiment.primary, *experiment.secondary)]
    rails = [guardrail.name for guardrail in experiment.guardrails]
    for kind, these in (("primary and secondary", names), ("guardrails", rails)):
        if len(set(these)) != len(these):
            twice = next(name for name in these if these.count(name) > 1)
            raise ValueError(f"{kind} hold the metric {twice} twice")
    if reserved := {"fallback_share", "latency_p99_ms"} & known.keys():
        raise ValueError(f"metric name {reserved.pop()} is that of a built-in guardrail")


def _check_time(text: str) -> None:
    try:
        zone = datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo
    except ValueError:
        zone = None
    if zone is None:
        raise ValueError(f"started is {text!r}; allowed: such as 2026-03-01T09:00:00+00:00")

"""Experiment manifests of rollout tests, with the comments that a person would have written."""

from __future__ import annotations

from typing import Any

import yaml

from contracts.experiments import Experiment
from contracts.reading import convert

TEXT = """# Does {release} beat the champion?
name: {name}
salt: {salt}   # deals the units
surfaces: {surfaces}
layer: {layer}
state: {state} # set by the rollout
arms:
  # the first is the control
  - name: control
    release: champion
    weight: {control:g} # what is left
  - {{name: treatment, release: {release}, weight: {weight:g}}} # in one line
primary: {{name: clicks, kind: click}}
guardrails:
  - {{metric: fallback_share, limit: 0.01}}
{tail}"""


def manifest(
    name: str,
    release: str = "r0002",
    weight: float = 0.5,
    control: float | None = None,
    state: str = "draft",
    layer: str = "ranking",
    surfaces: str = "[]",
    salt: str | None = None,
    tail: str = "",
) -> str:
    return TEXT.format(
        name=name,
        release=release,
        weight=weight,
        control=1 - weight if control is None else control,
        state=state,
        layer=layer,
        surfaces=surfaces,
        salt=salt or f"salt-{name}",
        tail=tail,
    )


def experiment_of(name: str, **changes: Any) -> Experiment:
    """The experiment that such a manifest says."""
    return convert(yaml.safe_load(manifest(name, **changes)), Experiment, name)

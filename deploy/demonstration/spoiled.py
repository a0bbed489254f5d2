"""A release that no gate of publishing can find fault with, and that harms: a broken export.

Its engines compute exactly what its model does, so parity holds; the model's scores have the wrong
sign. A refresh would refuse it by its evaluation. The demo publishes it by hand, as people do.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deploy.demonstration.commands import run
from deploy.served_repository import newest_release
from training.checkpoint import load_checkpoint, save_checkpoint
from training.release.store import ReleaseStore

#: What makes a score; the pairwise term is left, so that the lists are bad and not absurd.
SCORES = ("encoder.position_prior", "decoder.query.weight", "decoder.query.bias")


def publish_spoiled(out: Path, base: str) -> str:
    """Publish ``base`` with the sign of its scores turned; the name of the new release."""
    releases, spoiled = out / "releases", out / "spoiled.pt"
    checkpoint = load_checkpoint(ReleaseStore(releases).checkpoint(base))
    turned = {name: -checkpoint.weights[name] for name in SCORES}
    save_checkpoint(spoiled, replace(checkpoint, weights={**checkpoint.weights, **turned}))
    engines = out / "spoiled-engines"
    run(
        "training/export.py",
        *("--checkpoint", spoiled, "--data", out / "slates", "--out", engines),
    )
    run("training/publish.py", "--engines", engines, "--out", releases)
    return newest_release(releases).name

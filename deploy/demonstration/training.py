"""The demo's first half: from slates to the first published release."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.demonstration.commands import run
from deploy.served_repository import newest_release
from training.checkpoint import load_checkpoint

#: A rehearsal: a tiny model and few epochs.
SMALL = (
    "model.width=16",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "pretrain.optim.batch_size=512",
    "post_train.optim.batch_size=512",
    "post_train.optim.epochs=1",
    "post_train.pairs.draws=1",
    "post_train.pairs.evaluator.optim.epochs=2",
    "post_train.pairs.beam=1",
)


def first_release(slates: Path, out: Path, *, all_stages: bool, small: bool) -> Path:
    """Train, evaluate (``out``/evaluation.json), export and publish; the folder of the release."""
    policies = train(slates, out, all_stages, small)
    named = [part for name, path in policies.items() for part in ("--policy", f"{name}={path}")]
    run("training/evaluate.py", "--data", slates, *named, "--out", out / "evaluation.json")
    best, engines, releases = chosen(policies), out / "engines", out / "releases"
    run("training/export.py", "--checkpoint", best, "--data", slates, "--out", engines)
    run("training/publish.py", "--engines", engines, "--out", releases, "--champion")
    return newest_release(releases)


def train(slates: Path, out: Path, all_stages: bool, small: bool) -> dict[str, Path]:
    """Pre-training and Rerank-DPO; with ``all_stages`` also Rerank-DPO without pre-training."""
    shutil.rmtree(out / "runs", ignore_errors=True)  # of an earlier demo, perhaps on other data
    both = out / "runs" / "both"
    data = ("--data", slates, *(word for text in SMALL * small for word in ("--set", text)))
    policies = {"pre-training": both / "pretrain" / "best.pt"}
    run("training/pretrain.py", *data, "--out", both)
    if all_stages:
        post = out / "runs" / "post-only"
        untrained = ("--set", "pretrain.optim.epochs=0")
        run("training/pretrain.py", *data, "--out", post, *untrained)
        start = post / "pretrain" / "best.pt"
        run("training/post_train.py", *data, "--checkpoint", start, "--out", post, may_refuse=True)
        policies["post-training"] = post / "post_train" / "best.pt"
    start = policies["pre-training"]
    run("training/post_train.py", *data, "--checkpoint", start, "--out", both, may_refuse=True)
    return {**policies, "both": both / "post_train" / "best.pt"}


def chosen(policies: dict[str, Path]) -> Path:
    """The policy to publish: the best by the log's NDCG on held-out lists, where that chose them.

    Where it did not (candidates that were not shown), the last: Rerank-DPO, whose epochs are
    judged against the policy that it started from.
    """
    scores = {path: load_checkpoint(path).scores for path in policies.values()}
    if all("ndcg" in score for score in scores.values()):
        return max(scores, key=lambda path: scores[path]["ndcg"])
    return list(scores)[-1]

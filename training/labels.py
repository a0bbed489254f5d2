"""What post-training learns from: pairs, and the evaluators that some of them need."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from contracts.reading import stable_hash
from training.command import console
from training.data.arrays import SlateArrays
from training.distributed import Processes
from training.label_store import LabelStore
from training.model.gen_reranker import GenReranker
from training.pairs.base import PairSource
from training.pairs.exposure import ExposurePairs
from training.pairs.mirrored import MirroredPairs
from training.pairs.mixed import MixedPairs
from training.pairs.policy import PolicyPairs
from training.pairs.search import Searched, search_all
from training.pairs.separable import separable
from training.pairs.two_evaluators import TwoEvaluators, Weights, fit_two
from training.settings import TrainingSettings


@dataclass(frozen=True)
class Labels:
    """What post-training learns from.

    Attributes:
        two: both evaluators of policy pairs. refusal: why they may not label, or "".
        teacher: what is distilled, where the settings ask for it.
    """

    source: PairSource
    two: TwoEvaluators | None = None
    teacher: Searched | None = None
    refusal: str = ""


def make_labels(
    train: SlateArrays,
    valid: SlateArrays,
    settings: TrainingSettings,
    earlier: Weights,
    identity: str,
    store: LabelStore,
    begun: GenReranker,
    here: Processes,
) -> Labels:
    """The settings' pair source, with the evaluators that policy pairs need.

    Args:
        earlier: evaluators of the checkpoint to start from, or none.
        identity: hash of the slates and of ``earlier``.
        store: where evaluators and their lists are kept.
        begun: the policy to start from.
    """
    pairs = settings.post_train.pairs
    if pairs.source == "exposure":
        return Labels(ExposurePairs(pairs.alpha, pairs.gamma, pairs.examination))
    if pairs.source == "mirrored":
        return Labels(MirroredPairs(pairs.alpha, pairs.gamma, pairs.examination))
    evaluator = pairs.evaluator
    identity = stable_hash([identity, evaluator, settings.seed])
    two = store.two(
        identity,
        train.spec,
        evaluator,
        here.device,
        lambda: fit_two(train, valid, evaluator, settings.seed, here.device, earlier or None),
        here.is_first,
    )
    for name, fitted in (("labelling", two.labeller), ("judging", two.judge)):
        if here.is_first:
            console.print(
                f"{name} evaluator: held-out loss {fitted.report.loss:.5f}, by position alone "
                f"{fitted.report.position_rate_loss:.5f} ({fitted.report.gain:+.2%}), "
                f"calibration slope {fitted.report.slope:.2f}"
            )
    refusal = ""
    if not two.accepted:
        refusal = (
            "the evaluators predict held-out feedback no better than the position alone "
            f"({two.labeller.report.gain:+.2%} and {two.judge.report.gain:+.2%}, needed "
            f"{pairs.evaluator.min_gain:+.2%} and not by chance); they may not label pairs. The "
            "policy stays as it was; give more slates, or better features"
        )
    list_size = min(train.spec.list_size, int(train.count.max()))
    labeller = separable(two.labeller.evaluator, list_size, pairs.separable)
    searched: Searched | None = None
    distil = settings.post_train.distil > 0
    if (pairs.searched or distil) and not refusal:
        with console.status("searching the evaluators' lists"):
            searched = store.searched(
                stable_hash([identity, list_size, pairs.beam, pairs.separable]),
                lambda: search_all(labeller, train, list_size, here.device, pairs.beam),
                here.is_first,
            )
    source: PairSource = PolicyPairs(
        labeller,
        list_size,
        pairs,
        searched.lists if searched is not None and pairs.searched else None,
        copy.deepcopy(begun).eval() if pairs.pool == "fixed" else None,
    )
    if pairs.mix > 0:
        mirrored = MirroredPairs(pairs.alpha, pairs.gamma, pairs.examination)
        source = MixedPairs(source, mirrored, pairs.mix)
    return Labels(source, two, searched if distil else None, refusal)

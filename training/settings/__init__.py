"""Typed settings of training. One YAML file for each source lies beside this module."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from contracts.reading import Strict, read_yaml


def _check(ok: bool, text: str) -> None:
    if not ok:
        raise ValueError(text)


def _at_least(settings: Strict, low: float, *names: str) -> None:
    """Raise ValueError unless these fields are finite and ``low`` or more."""
    for name in names:
        value = getattr(settings, name)
        _check(low <= value < math.inf, f"{name} is {value}; allowed: {low:g} or more")


def _above(settings: Strict, low: float, *names: str) -> None:
    """Raise ValueError unless these fields are finite and above ``low``."""
    for name in names:
        value = getattr(settings, name)
        _check(low < value < math.inf, f"{name} must be above {low:g}, and finite; it is {value}")


AnySettings = TypeVar("AnySettings", bound=Strict)

#: Width of a feature's vector in the pairwise term.
PAIR_WIDTH = 16
#: How many items back the pairwise term reaches.
PAIR_WINDOW = 8


class ModelSettings(Strict, kw_only=True, frozen=True):
    """Gen-Reranker. The paper fixes 4 + 4 layers and H = 4; the rest is open (paper_index.md).

    Attributes:
        width: D.
        attention_heads, feed_forward: of every block; feed_forward as a multiple of D.
        heads: H, the items decoded in one pass.
        pairwise: categorical item features (category, author) with a learned term between a
            candidate's value and those of the last PAIR_WINDOW items, weighted by their distance.
            Within a pass the heads do not see one another's choices; this term does. Empty is
            the paper's model.
        cross_attention: whether the decoder looks at Z besides its own prefix.
        prior: what is added to the matching logits of Eq. 5. ``position`` is a learned weight
            for each given position, initialised to ``-prior_slope * log(1 + position)``: an
            untrained model then gives the given order back, and little training overrules it.
    """

    width: int = 64
    encoder_layers: int = 4
    decoder_layers: int = 4
    attention_heads: int = 4
    feed_forward: int = 2
    heads: int = 4
    cross_attention: bool = True
    pairwise: tuple[str, ...] = ()
    dropout: float = 0.0
    prior: Literal["none", "position"] = "position"
    prior_slope: float = 1.0

    def __post_init__(self) -> None:
        _at_least(self, 1, "width", "attention_heads", "feed_forward")
        _at_least(self, 1, "encoder_layers", "decoder_layers")
        _at_least(self, 0, "prior_slope")
        _check(self.width % self.attention_heads == 0, "attention_heads must divide width")
        _check(1 <= self.heads <= 16, f"heads (H) is {self.heads}; allowed: 1 to 16")
        _check(0 <= self.dropout < 1, "dropout must be in [0, 1)")

    @property
    def pair_rank(self) -> int:
        """R: the width of the pairwise term's vectors."""
        return PAIR_WIDTH * len(self.pairwise)


class OptimSettings(Strict, kw_only=True, frozen=True):
    """AdamW with a linear warm-up and cosine decay to a tenth.

    Attributes:
        patience: stop after so many epochs without a better held-out score; 0 never stops.
        precision: ``auto`` is bf16 autocast where the device has it, else fp32.
    """

    epochs: int = 4
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up_steps: int = 50
    clip_norm: float = 1.0
    patience: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        _at_least(self, 0, "epochs", "weight_decay", "warm_up_steps", "patience")
        _at_least(self, 1, "batch_size")
        _above(self, 0, "learning_rate", "clip_norm")


class PretrainSettings(Strict, kw_only=True, frozen=True):
    """Pre-training: L_omtp = lambda_n L_n + lambda_o L_o, and a warm-up on the given order.

    Attributes:
        given_epochs: epochs on the previous stage's order before the exposure order.
        order_score: S of L_o. ``feedback`` is the NDCG of the window's feedback, with agreement
            with the exposure order where the window has none; ``exposure`` is always the latter.
        lambda_pointwise: weight of a pointwise loss of the utility on Z (0: none).
        max_permutations: windows with more permutations use a random subset of this size.
    """

    optim: OptimSettings = OptimSettings()
    given_epochs: int = 1
    lambda_n: float = 1.0
    lambda_o: float = 0.1
    lambda_pointwise: float = 0.0
    order_score: Literal["feedback", "exposure"] = "feedback"
    max_permutations: int = 24

    def __post_init__(self) -> None:
        _at_least(self, 0, "given_epochs", "lambda_n", "lambda_o", "lambda_pointwise")
        _at_least(self, 2, "max_permutations")


class EvaluatorSettings(Strict, kw_only=True, frozen=True):
    """The listwise evaluator that labels ``policy`` pairs; it never serves.

    Attributes:
        again: in place of ``optim`` where it starts from an earlier one (that of the champion): it
            knows most of what there is to know, and a few new slates must not make it forget.
            One is also fitted from nothing, and taken where it is better on held-out slates, and
            not by chance: where tastes have moved, what the earlier one knows is wrong.
        id_dropout: share of items and users whose identity (the features ``item`` and ``user``)
            is hidden while fitting from nothing, each time anew: with few slates identities are
            learned by heart, and what other features say is not.
        candidate_layers: blocks in which candidates see one another before lists are made of them.
            For logs in which all were shown; elsewhere which ones stood beside an item says how it
            was chosen.
        rates: whether it reads how often items, categories, and those together with the user's,
            did well in the slates that it is fitted on (training/pairs/rates.py). Each evaluator
            then keeps 8 bytes for every value of a column, and of two columns up to a million.
        min_gain: labels are refused unless the held-out log-loss (or squared error) is below
            that of the rate at each position by this share, and not by chance. Below 0: no gate.
        discount: how a list's value sums up over positions. ``none`` is the expected utility of
            the list as shown; ``log`` weighs position k by 1 / log2(k + 1), for pseudo-lists,
            whose positions were never on a screen.
        labellers: evaluators that label; what they expect is averaged. The list that one of them
            finds best is too often one on which it errs.
        other_kinds: weight of the losses of the other feedback kinds, learned from the same
            representations (multi-task). 0, the default: they are not learned.
        judge_share: share of the users whose lists fit a second evaluator. It labels nothing: it
            judges the policy's lists after every epoch, so that an epoch is not chosen by the
            evaluator that it was trained to please.
        apart: whether the labellers leave the lists of the judge's users out. Then the judge knows
            nothing that they know; else they know more.
    """

    optim: OptimSettings = OptimSettings(epochs=2, batch_size=64, learning_rate=2e-3, patience=2)
    again: OptimSettings = OptimSettings(epochs=3, learning_rate=5e-4, patience=1)
    width: int = 48
    layers: int = 2
    attention_heads: int = 4
    dropout: float = 0.1
    id_dropout: float = 0.0
    candidate_layers: int = 0
    rates: bool = True
    min_gain: float = 0.005
    discount: Literal["none", "log"] = "none"
    labellers: int = 1
    other_kinds: float = 0.0
    judge_share: float = 1 / 3
    apart: bool = True

    def __post_init__(self) -> None:
        _at_least(self, 1, "width", "layers", "attention_heads", "labellers")
        _check(self.width % self.attention_heads == 0, "attention_heads must divide width")
        _check(0 <= self.dropout < 1, "dropout must be in [0, 1)")
        _check(0 <= self.id_dropout <= 1, "id_dropout must be in [0, 1]")
        _at_least(self, 0, "other_kinds", "candidate_layers")
        _check(self.labellers <= 64, f"labellers is {self.labellers}; allowed: 1 to 64")
        _check(math.isfinite(self.min_gain), f"min_gain is {self.min_gain}; allowed: finite")
        _check(0 < self.judge_share < 1, "judge_share must be above 0 and below 1")


class PairSettings(Strict, kw_only=True, frozen=True):
    """Where preference pairs come from.

    Attributes:
        source: ``exposure`` is Eq. 7 (winner: the shown list sorted by S, loser: as shown);
            ``mirrored`` has as loser the list sorted with as many random items in the place of
            those with feedback; ``policy`` draws lists from the policy and an evaluator ranks them.
        alpha, gamma: S_i = alpha / P_i + gamma * U_i (Eq. 7), for the pairs of shown lists.
        examination: eta of k^-eta, the propensity that position k was looked at; U_i is weighted
            by its inverse (training/pairs/examination.py). 0 takes feedback as it is. Policy
            pairs need none: their evaluator knows the position.
        draw, draws, temperature: how lists are drawn for each request, how many, and how freely
            (``policy``; training/pairs/drawing.py).
        compare, margin: ``best_worst`` makes one pair of a request's lists, ``all`` one of every
            two; only where their values differ by more than the margin, in utility a list.
        pool: ``online`` draws from the policy as it is now, ``fixed`` always the same lists, from
            the policy that post-training began with.
        mix: share of the slates whose pair is a mirrored one of the log instead (``policy``).
        beam: width of the evaluators' search for the list that they would build; 1 is greedy.
        separable: how far the evaluators that label are taken from what they learned of an item
            at its place to what it is worth at any (training/pairs/separable.py): 0 to 1, wholly.
        searched: whether the list that the evaluator would build is among them: the policy's own
            draws seldom hold the best of what the evaluator knows.
    """

    source: Literal["exposure", "mirrored", "policy"] = "policy"
    alpha: float = 1.0
    gamma: float = 1.0
    examination: float = 0.0
    draw: Literal["temperature", "gumbel_top", "perturbed"] = "temperature"
    draws: int = 3
    compare: Literal["best_worst", "all"] = "best_worst"
    margin: float = 0.0
    pool: Literal["online", "fixed"] = "online"
    mix: float = 0.0
    temperature: float = 1.0
    searched: bool = True
    beam: int = 1
    separable: float = 0.5
    evaluator: EvaluatorSettings = EvaluatorSettings()

    def __post_init__(self) -> None:
        _at_least(self, 0, "alpha", "gamma", "examination", "margin")
        _check(0 <= self.mix < 1, "mix must be 0 or more, and below 1")
        # A slate's draws have 64 seeds of their own; at temperature 0 all draws are one list.
        _check(1 <= self.draws < 64, f"draws is {self.draws}; allowed: 1 to 63")
        _above(self, 0, "temperature")
        _check(0 <= self.separable <= 1, f"separable is {self.separable}; allowed: 0 to 1")
        _check(1 <= self.beam <= 16, f"beam is {self.beam}; allowed: 1 to 16")


class PostTrainSettings(Strict, kw_only=True, frozen=True):
    """Rerank-DPO (Eq. 8).

    The loss is ``dpo`` times Eq. 8 with its likelihood term, and ``distil`` times the distance to
    what the evaluators expect (training/losses/distillation.py).

    Attributes:
        dpo, distil: the weights. Distillation is for policy pairs, from whose evaluators it learns;
            other pairs have none, and leave it out.
        dpo_epochs: pairs are learned in the last so many epochs; those before are distillation
            alone, a warm start. 0: in all, as where nothing is distilled.
        distil_temperature: of the evaluators' distribution over the candidates, in logits.
        soften: what the logits of a policy that evaluators were distilled into are divided by once
            it is trained. Its lists stay; it explores more, and a refresh can move it.
        max_kl, max_optimism: post-training stops, and no later epoch is chosen, where the policy is
            further than this from the one it began with (nats a list, KL) or the evaluators that
            label see a gain over the given order that is this much larger than the judge's
            (utility a list). 0: no limit.
        likelihood: an added term against likelihood displacement. ``nll`` adds the mean negative
            log-probability of the chosen list's items; ``dpop`` the fall of the chosen list
            below the reference (arXiv 2402.13228).
        factorisation: of pi(Y). ``block`` is what decoding uses; ``head_1`` is Eq. 1, item by item,
            which trains the first head alone.
        length: log pi(Y) as a ``sum`` over the list (Eq. 4) or as a ``mean`` over its items, so
            that lists of different lengths weigh alike.
        collapse_nats: the alarm: mean fall of the chosen list's log-probability below the
            reference, in nats a list, at which training is stopped as collapsed.
    """

    optim: OptimSettings = OptimSettings(epochs=3, learning_rate=3e-4)
    pairs: PairSettings = PairSettings()
    dpo: float = 1.0
    dpo_epochs: int = 0
    distil: float = 0.0
    distil_temperature: float = 0.1
    soften: float = 1.0
    max_kl: float = 0.0
    max_optimism: float = 0.0
    beta: float = 0.1
    label_smoothing: float = 0.0
    likelihood: Literal["none", "nll", "dpop"] = "nll"
    likelihood_weight: float = 0.1
    factorisation: Literal["block", "head_1"] = "block"
    length: Literal["sum", "mean"] = "sum"
    collapse_nats: float = 10.0

    def __post_init__(self) -> None:
        _above(self, 0, "beta", "collapse_nats")
        _at_least(
            self, 0, "likelihood_weight", "dpo", "dpo_epochs", "distil", "max_kl", "max_optimism"
        )
        _above(self, 0, "distil_temperature", "soften")
        taught = self.distil > 0 and self.pairs.source == "policy"
        _check(
            self.dpo > 0 or taught,
            "dpo is 0: nothing is left to learn; distil must be above 0, and pairs.source policy",
        )
        _check(0 <= self.label_smoothing < 0.5, "label_smoothing must be in [0, 0.5)")


class TrainingSettings(Strict, kw_only=True, frozen=True):
    """All settings of a run."""

    seed: int = 0
    model: ModelSettings = ModelSettings()
    pretrain: PretrainSettings = PretrainSettings()
    post_train: PostTrainSettings = PostTrainSettings()

    def __post_init__(self) -> None:
        # Every epoch draws from seed * 1000 + epoch, which torch takes in 64 bits.
        _check(0 <= self.seed < 2**32, f"seed is {self.seed}; allowed: 0 to {2**32 - 1}")


def read_settings(path: str | Path) -> TrainingSettings:
    """Read a settings file; raises ContractError that names the file and the field."""
    return read_yaml(path, TrainingSettings)


def override(settings: AnySettings, changes: dict[str, object]) -> AnySettings:
    """A copy with dotted fields replaced, e.g. ``{"post_train.beta": 1.0}``.

    Raises:
        ValueError: an unknown name, or a value that the setting cannot have.
    """
    plain = msgspec.to_builtins(settings)
    for dotted, value in changes.items():
        *parents, leaf = dotted.split(".")
        node = plain
        for depth, name in enumerate([*parents, leaf]):
            if not isinstance(node, dict):
                raise ValueError(f"no setting {dotted}; {'.'.join(parents[:depth])} is a value")
            if name not in node:
                raise ValueError(f"no setting {dotted}; allowed here: {', '.join(node)}")
            if depth < len(parents):
                node = node[name]
        node[leaf] = value
    return msgspec.convert(plain, type(settings), strict=False)

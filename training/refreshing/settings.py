"""Typed settings of a refresh; ``refresh.yaml`` beside this file holds the defaults and why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import msgspec

from contracts.reading import Strict, read_yaml
from training.evaluation.off_policy.estimate import OffPolicySettings
from training.settings import PairSettings, PostTrainSettings

DEFAULT = Path(__file__).with_name("refresh.yaml")


def _share(settings: Strict, *names: str) -> None:
    """Raise ValueError unless these fields are from 0 to 1."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; allowed: 0 to 1")


def _from(settings: Strict, low: float, *names: str) -> None:
    """Raise ValueError unless these fields are finite and ``low`` or more."""
    for name in names:
        value = getattr(settings, name)
        if not low <= value < math.inf:
            raise ValueError(f"{name} is {value}; allowed: {low:g} or more")


class SplitSettings(Strict, kw_only=True, frozen=True):
    """Shares of the slates, by time, that choose the epoch (valid) and that the gates see (test).

    Test is the newest; training sees neither.
    """

    valid: float = 0.1
    test: float = 0.15

    def __post_init__(self) -> None:
        if not (self.valid > 0 and self.test > 0 and self.valid + self.test < 1):
            raise ValueError(
                f"valid is {self.valid} and test {self.test}; allowed: above 0, below 1 together"
            )


class DataGateSettings(Strict, kw_only=True, frozen=True):
    """What slates must be like before anything is trained on them.

    Attributes:
        min_slates, min_users, min_with_utility: at least so many slates, users, and slates with
            U above 0.
        max_dropped, max_duplicates: largest share of rows that cannot be used, and of requests
            that are in the table twice.
        max_rate_ratio: how many times more, or less, of a kind of feedback there may be than in
            the reference; ``rate_ratio`` replaces it for a kind by name.
        min_rate: kinds rarer than this in the reference are not compared.
        max_position_shift: total variation distance between the shares of U by list position
            and the reference's. Random clicks know no position; people's do.
        max_user_share: largest share of all U that one user gave.
        max_saturated: largest share of lists with U on every item, above the reference's.
        max_fallbacks: largest share of lists that are a fallback's given order.
    """

    min_slates: int = 2000
    min_users: int = 50
    min_with_utility: int = 300
    max_dropped: float = 0.01
    max_duplicates: float = 0.0
    max_rate_ratio: float = 2.0
    rate_ratio: dict[str, float] = msgspec.field(default_factory=dict)
    min_rate: float = 0.001
    max_position_shift: float = 0.1
    max_user_share: float = 0.05
    max_saturated: float = 0.02
    max_fallbacks: float = 0.5

    def __post_init__(self) -> None:
        _from(self, 1, "min_slates", "min_with_utility", "max_rate_ratio")
        _from(self, 2, "min_users")
        _share(self, "max_dropped", "max_duplicates", "min_rate", "max_position_shift")
        _share(self, "max_user_share", "max_saturated", "max_fallbacks")
        for kind, ratio in self.rate_ratio.items():
            if not 1 <= ratio < math.inf:
                raise ValueError(f"rate_ratio of {kind} is {ratio}; allowed: 1 or more")


class GateSettings(Strict, kw_only=True, frozen=True):
    """What a candidate must be like beside the champion, on the newest held-out slates.

    Attributes:
        min_pairs: smallest share of slates that gave a preference pair.
        value_margin: how far the candidate's expected utility by the judge may be below the
            champion's, as a share of it, at the lower end of the interval.
        ranking: metric of shown items -> the same for it, absolute. ``ndcg_shown_ips`` weighs
            feedback by the inverse of the estimated examination; the others favour the order
            that was shown, and are there for what is broken altogether.
        off_policy_margin: how far the off-policy difference may be below 0 at the lower end, as a
            share of U a list. An interval wider than the margin cannot show that: it refuses only
            what lies below 0 with both ends.
        max_chosen_fall: nats a list that the chosen side may have lost against the champion.
        max_drift: nats a list, mean KL divergence from the anchor's policy.
        max_latency_ratio: of the candidate's engines to the champion's, medians of one run.
        resamples, level: of the paired bootstrap over users.
        require_better: whether a candidate that is the champion again is refused.
    """

    min_pairs: float = 0.2
    value_margin: float = 0.0
    ranking: dict[str, float] = msgspec.field(
        default_factory=lambda: {"ndcg_shown_ips": 0.03, "auc": 0.06}
    )
    off_policy_margin: float = 0.05
    max_chosen_fall: float = 5.0
    max_drift: float = 30.0
    max_latency_ratio: float = 2.0
    resamples: int = 1000
    level: float = 0.95
    require_better: bool = True

    def __post_init__(self) -> None:
        _share(self, "min_pairs")
        _from(self, 0, "value_margin", "off_policy_margin")
        for metric, margin in self.ranking.items():
            if not 0 <= margin < math.inf:
                raise ValueError(f"ranking of {metric} is {margin}; allowed: 0 or more")
        _from(self, 0, "max_chosen_fall", "max_drift")
        _from(self, 1, "max_latency_ratio")
        _from(self, 50, "resamples")
        if not 0.5 <= self.level < 1:
            raise ValueError(f"level is {self.level}; allowed: 0.5 to below 1")


class RefreshSettings(Strict, kw_only=True, frozen=True):
    """All settings of a refresh.

    Attributes:
        examination: position-bias correction of exposure and mirrored pairs. ``off``; ``given``
            takes ``post_train.pairs.examination`` as eta; ``estimated`` measures eta in the log.
        epoch: which one becomes the candidate: the judge's ``best``, or the ``latest`` that the
            judge cannot tell from it, by a standard error.
        off_policy: how off-policy estimates are made, and when they are not usable.
        mode: how the engines decode: omtp, one_at_a_time or verified.
        parity_requests: requests of the parity gate.
    """

    seed: int = 0
    split: SplitSettings = SplitSettings()
    data: DataGateSettings = DataGateSettings()
    examination: Literal["off", "given", "estimated"] = "off"
    epoch: Literal["best", "latest"] = "latest"
    post_train: PostTrainSettings = PostTrainSettings()
    gates: GateSettings = GateSettings()
    off_policy: OffPolicySettings = OffPolicySettings()
    mode: Literal["omtp", "one_at_a_time", "verified"] = "omtp"
    parity_requests: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; allowed: 0 to {2**32 - 1}")
        _from(self, 1, "parity_requests")
        pairs = self.post_train.pairs
        if self.examination == "estimated" and pairs.source == "policy":
            raise ValueError(
                "examination is estimated with policy pairs, whose evaluator knows the position; "
                "allowed: with exposure or mirrored pairs"
            )
        if self.examination != "given" and pairs.examination != PairSettings().examination:
            raise ValueError(
                f"examination is {self.examination}, yet post_train.pairs.examination is "
                f"{pairs.examination}; allowed: set examination to given"
            )


def read_refresh_settings(path: str | Path | None = None) -> RefreshSettings:
    """Read a settings file, by default ``refresh.yaml``; raises ContractError that says where."""
    return read_yaml(path or DEFAULT, RefreshSettings)

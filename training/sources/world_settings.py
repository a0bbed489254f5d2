"""What a simulated world is made of, and the named worlds.

The presets differ in how good the order is that the reranker receives (``given_noise``) and in what
items of a list do to one another: nothing, tire the eye (``fatigue``), or lead to the next
(``complementarity``). docs/data.md and docs/evaluation/README.md give their measured headroom.
"""

from __future__ import annotations

import msgspec

from contracts.reading import Strict


class WorldSettings(Strict, kw_only=True, frozen=True):
    """Settings of a world; the world is a pure function of them.

    Attributes:
        seed: draws the catalogue and the users. Requests have seeds of their own.
        items, categories, users, segments: sizes.
        latent: dimension of tastes and items; both are unit vectors.
        item_spread, taste_spread: length of an item's (a user's) own part beside the unit centre
            of its category (segment).
        scale, bias, quality_std, activity_bias: logit of the attractiveness of an item to a user
            is ``scale * taste . item + quality + activity_bias * activity + bias``.
        quality_noise: standard deviation of the error in the quality that features show.
        candidates, list_size: m handed over by the previous stage, n shown by production.
        retrieval: how strongly retrieval prefers items near the user's taste; 0 is at random.
        given_noise: standard deviation of the previous stage's error, on the logit scale.
        logging_temperature: production draws its list from Plackett-Luce over score / temperature.
        position_bias: examination of position k (from 1) is ``k ** -position_bias``.
        fatigue, fatigue_window: an item is up to ``fatigue`` less attractive when its like is
            among the ``fatigue_window`` items shown before it.
        complementarity: an item that completes one of the ``fatigue_window`` items before it (each
            category completes one other) wins up to this share of ``w * (1 - w)``, w being its
            attractiveness without.
        watch_match, watch_sigma: given a click, the watched part of the video is log-normal with
            median ``exp(watch_match * (taste . item - 1))`` and log-scale ``watch_sigma``.
        long_view_seconds: a view is long from here on, or when it reaches the video's end.
        hide_rate: probability that an examined item without a click is hidden.
        days: span of simulated time over which the requests are spread.
        drift: how far tastes have moved, from 0 to 1 (``world_tastes.py``). A world that changes
            is a row of worlds that differ in this alone: ``World.at``.
    """

    seed: int = 7
    items: int = 2000
    categories: int = 20
    users: int = 4000
    segments: int = 12
    latent: int = 16
    item_spread: float = 0.5
    taste_spread: float = 0.5
    scale: float = 3.0
    bias: float = -1.5
    quality_std: float = 0.7
    activity_bias: float = 0.3
    quality_noise: float = 0.5
    candidates: int = 30
    list_size: int = 10
    retrieval: float = 4.0
    given_noise: float
    logging_temperature: float
    position_bias: float = 0.5
    fatigue: float
    fatigue_window: int = 4
    complementarity: float = 0.0
    watch_match: float = 1.5
    watch_sigma: float = 0.8
    long_view_seconds: float = 18.0
    hide_rate: float = 0.01
    days: float = 10.0
    drift: float = 0.0

    def __post_init__(self) -> None:
        whole = ("items", "categories", "users", "segments", "latent", "list_size")
        for name in whole:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: at least 1")
        if not self.list_size <= self.candidates <= min(self.items, 512):
            raise ValueError(
                f"candidates is {self.candidates}; allowed: list_size ({self.list_size}) to "
                f"the smaller of items ({self.items}) and 512"
            )
        for name in ("logging_temperature", "watch_sigma", "days", "long_view_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: above 0")
        for name in ("given_noise", "position_bias", "quality_noise", "quality_std"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 0 or more")
        for name in ("fatigue", "complementarity", "hide_rate", "drift"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 0 to 1")
        if self.fatigue_window < 0:
            raise ValueError(f"fatigue_window is {self.fatigue_window}; allowed: 0 or more")


_NOISY = WorldSettings(
    item_spread=0.7, retrieval=2.0, given_noise=1.5, logging_temperature=0.5, fatigue=0.8
)

#: Worlds by name. ``noisy``: a poor given order and redundancy that tires the eye; ``strong``: a
#: good one, and less of it. ``fickle``: few segments with strong tastes that the given order hardly
#: knows. Features show them, so that what a policy has learned of them is most of its gain, and
#: what drift takes away. The others are ``noisy`` but for the list effect: ``plain`` has none, and
#: every position is looked at; in ``position`` examination falls with the position, and that is
#: all; in ``complements`` items lead to others in the place of tiring.
PRESETS = {
    "plain": msgspec.structs.replace(_NOISY, fatigue=0.0, position_bias=0.0),
    "position": msgspec.structs.replace(_NOISY, fatigue=0.0),
    "complements": msgspec.structs.replace(
        _NOISY,
        categories=6,
        scale=2.0,
        bias=-3.0,
        retrieval=1.0,
        fatigue=0.0,
        fatigue_window=1,
        complementarity=1.0,
    ),
    "noisy": _NOISY,
    "strong": WorldSettings(
        item_spread=0.35,
        scale=2.5,
        bias=-2.0,
        quality_std=0.5,
        given_noise=0.45,
        logging_temperature=0.4,
        fatigue=0.55,
    ),
    "fickle": WorldSettings(
        categories=12,
        segments=4,
        item_spread=0.3,
        taste_spread=0.2,
        scale=4.0,
        bias=-2.0,
        retrieval=1.0,
        given_noise=2.5,
        logging_temperature=0.5,
        fatigue=0.4,
    ),
}

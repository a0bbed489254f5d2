"""A simulated world that knows the truth: the exact expected feedback of any list.

Numbers measured here are simulated, and whatever prints them must say so. Axes: B requests,
M candidates, N list positions, D latent dimensions. Users and items are rows of the world's
tables; ``user_id`` and ``item_id`` give the strings that travel in slates.

A click at position k (from 1) has probability ``examination(k) * (w + complementarity * c * w *
(1 - w))``, where ``w = a * (1 - fatigue * s)``: a is the attractiveness of the item to the user, s
the greatest similarity to the window of items before it, and c is 1 where that window holds an item
whose category this one's completes, else 0. Clicks are independent given the list, hence
expectations are closed forms.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.slates import Slate
from training.sources.world_settings import PRESETS, WorldSettings
from training.sources.world_tastes import Tastes, unit

__all__ = ["KINDS", "PRESETS", "Requests", "World", "WorldSettings"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Feedback kinds and whether they are binary.
KINDS = {"click": True, "long_view": True, "like": True, "watch_time": False, "hide": True}


@dataclass(frozen=True)
class Requests:
    """B requests. Candidates come in the given order, by score descending.

    Attributes:
        users: [B]; candidates: item rows [B, M]; scores: the previous stage's scores [B, M].
    """

    users: Ints
    candidates: Ints
    scores: Floats


class World:
    """Users, items, and what the ones do with lists of the others."""

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        s = settings
        rng = np.random.default_rng([s.seed, 0])
        centres = unit(rng.normal(size=(s.categories, s.latent)))
        self.category: Ints = rng.integers(s.categories, size=s.items)
        own = unit(rng.normal(size=(s.items, s.latent)))
        self.item_latent: Floats = unit(centres[self.category] + s.item_spread * own)
        self.quality: Floats = rng.normal(0, s.quality_std, s.items)
        self.observed_quality: Floats = self.quality + rng.normal(0, s.quality_noise, s.items)
        self.duration: Floats = np.clip(np.exp(rng.normal(3.6, 0.8, s.items)), 5, 600)

        # From a stream of its own: worlds without complements stay as they were. A cycle through
        # all categories, so that each completes one other.
        cycle = np.random.default_rng([s.seed, 3]).permutation(s.categories)
        self.completed_by: Ints = np.empty(s.categories, np.int64)
        self.completed_by[cycle] = np.roll(cycle, -1)

        self._moving = Tastes(s, centres)
        self.segment, self.activity = self._moving.segment, self._moving.activity
        self._tastes = self._moving.at(s.drift)
        self._frequency = np.cumsum(np.exp(0.5 * self.activity))
        self._frequency /= self._frequency[-1]

    def at(self, drift: float) -> World:
        """This world when tastes have moved so far: the same users and items, shared with it.

        Raises:
            ValueError: a drift outside 0 to 1.
        """
        moved = copy.copy(self)
        moved.settings = msgspec.structs.replace(self.settings, drift=drift)
        moved._tastes = self._moving.at(drift)
        return moved

    # --- identities ---------------------------------------------------------------------------

    @staticmethod
    def user_id(user: int) -> str:
        return f"u{user}"

    @staticmethod
    def item_id(item: int) -> str:
        return f"i{item}"

    def user_rows(self, ids: Sequence[str]) -> Ints:
        """Rows of user ids [B]; raises ValueError for an id that is not of this world."""
        return _rows(ids, "u", self.settings.users)

    def item_rows(self, ids: Sequence[str]) -> Ints:
        """Rows of item ids [any]; raises ValueError for an id that is not of this world."""
        return _rows(ids, "i", self.settings.items)

    # --- requests -----------------------------------------------------------------------------

    def tastes(self, users: Ints) -> Floats:
        """Unit taste vectors [B, D], at the drift of the settings."""
        return self._tastes[users]

    def draw(self, count: int, rng: np.random.Generator) -> Requests:
        """Draw requests: users by activity, candidates by retrieval, the given order by score."""
        s = self.settings
        users = np.searchsorted(self._frequency, rng.random(count)).astype(np.int64)
        # Gumbel-top-m is sampling without replacement from softmax(retrieval * affinity).
        keys = s.retrieval * (self.tastes(users) @ self.item_latent.T)
        keys += rng.gumbel(size=keys.shape)
        # In the order of their keys: argpartition leaves them in an order that depends on the
        # processor, and noise goes to candidates by their places.
        best = np.argpartition(-keys, s.candidates - 1, axis=1)[:, : s.candidates]
        by_key = np.argsort(-np.take_along_axis(keys, best, axis=1), axis=1, kind="stable")
        candidates = np.take_along_axis(best, by_key, axis=1)
        scores = self.logits(users, candidates)
        scores += rng.normal(0, s.given_noise, scores.shape)
        order = np.argsort(-scores, axis=1, kind="stable")
        return Requests(
            users=users,
            candidates=np.take_along_axis(candidates, order, axis=1),
            scores=np.take_along_axis(scores, order, axis=1),
        )

    def show(self, requests: Requests, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """Production's lists, drawn from Plackett-Luce over score / temperature.

        Returns:
            Positions among the candidates [B, N], and the natural log-probability of each choice
            given the choices before it [B, N].
        """
        keys = requests.scores / self.settings.logging_temperature
        order = np.argsort(-(keys + rng.gumbel(size=keys.shape)), axis=1, kind="stable")
        shown = order[:, : self.settings.list_size]
        # log p(y_t) = key_t - logsumexp of the keys not yet chosen, summed from the end.
        sorted_keys = np.take_along_axis(keys, order, axis=1)
        remaining = np.logaddexp.accumulate(sorted_keys[:, ::-1], axis=1)[:, ::-1]
        return shown, (sorted_keys - remaining)[:, : self.settings.list_size]

    # --- the truth ----------------------------------------------------------------------------

    def affinity(self, users: Ints, items: Ints) -> Floats:
        """taste . item in [-1, 1], for users [B] and items [B, K]."""
        tastes, latent = self.tastes(users), self.item_latent[items]
        return np.asarray(np.einsum("bd,bkd->bk", tastes, latent))

    def logits(self, users: Ints, items: Ints) -> Floats:
        """Logit of the attractiveness, for users [B] and items [B, K]."""
        s = self.settings
        user = s.activity_bias * self.activity[users] + s.bias
        return s.scale * self.affinity(users, items) + self.quality[items] + user[:, None]

    def attractiveness(self, users: Ints, items: Ints) -> Floats:
        """Click probability of an examined item that nothing tires, in (0, 1), [B, K]."""
        return _sigmoid(self.logits(users, items))

    def similarity(self, left: Ints, right: Ints) -> Floats:
        """Likeness in [0, 1]: the latent cosine within a category, 0 across categories."""
        cosine = np.einsum("...d,...d->...", self.item_latent[left], self.item_latent[right])
        same = self.category[left] == self.category[right]
        return np.asarray(np.clip(cosine, 0, 1) * same)

    def completes(self, before: Ints, after: Ints) -> npt.NDArray[np.bool_]:
        """Whether the category of ``after`` is the one that completes that of ``before``."""
        return np.asarray(self.completed_by[self.category[before]] == self.category[after])

    def examination(self, size: int) -> Floats:
        """Probability that positions 1 to ``size`` are looked at, [N]."""
        return np.asarray(np.arange(1.0, size + 1) ** -self.settings.position_bias, np.float64)

    def freshness(self, items: Ints) -> Floats:
        """1 - fatigue * (greatest similarity to the window before), for lists [B, N]."""
        tired = np.zeros(items.shape)
        for back in range(1, min(self.settings.fatigue_window, items.shape[1] - 1) + 1):
            before, after = items[:, :-back], items[:, back:]
            alike = self.similarity(before, after) * (before >= 0) * (after >= 0)
            tired[:, back:] = np.maximum(tired[:, back:], alike)
        return 1 - self.settings.fatigue * tired

    def completion(self, items: Ints) -> Floats:
        """1 where the window before holds an item that this one completes, else 0: [B, N]."""
        found = np.zeros(items.shape)
        for back in range(1, min(self.settings.fatigue_window, items.shape[1] - 1) + 1):
            before, after = items[:, :-back], items[:, back:]
            fits = self.completes(before, after) & (before >= 0) & (after >= 0)
            found[:, back:] = np.maximum(found[:, back:], fits)
        return found

    def wanted(self, users: Ints, items: Ints) -> Floats:
        """Click probability of an examined item within its list, for lists [B, N]."""
        fresh = self.attractiveness(users, items) * self.freshness(items)
        if self.settings.complementarity == 0:
            return fresh
        return self._lifted(fresh, self.completion(items))

    def _lifted(self, fresh: Floats, completion: Floats) -> Floats:
        return fresh + self.settings.complementarity * completion * fresh * (1 - fresh)

    def expected(self, kind: str, users: Ints, items: Ints) -> Floats:
        """Exact expected feedback of lists, by position.

        Args:
            kind: one of KINDS; watch_time is in seconds.
            users: user rows [B]; items: item rows [B, N] in the order shown, -1 where a list ends.

        Raises:
            ValueError: an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
        users, items = np.asarray(users), np.asarray(items)
        seen = self.examination(items.shape[1]) * (items >= 0)
        wanted = self.wanted(users, items)
        if kind == "hide":
            return seen * (1 - wanted) * self.settings.hide_rate
        if kind == "click":
            return seen * wanted
        given_click = {
            "long_view": self._long_view,
            "like": self._like,
            "watch_time": self._watch_time,
        }[kind]
        return seen * wanted * given_click(users, items)

    def expected_of(self, kind: str, slates: Sequence[Slate], lists: Sequence[Ints]) -> Floats:
        """Exact expected feedback [B], summed over positions, of a list for each slate's request.

        Args:
            lists: for each slate, indices into its candidates in the order to show; -1 ends it.
        """
        users = self.user_rows([slate.user for slate in slates])
        width = max(len(order) for order in lists)
        items = np.full((len(slates), width), -1, np.int64)
        for row, (slate, order) in enumerate(zip(slates, lists)):
            chosen = [slate.candidates[index].item for index in order if index >= 0]
            items[row, : len(chosen)] = self.item_rows(chosen)
        total: Floats = self.expected(kind, users, items).sum(axis=1)
        return total

    def greedy_oracle(self, users: Ints, candidates: Ints, size: int) -> Ints:
        """Lists that take the best next click knowing the truth, and its true best value.

        Greedy, so a lower bound of the best list: it does not weigh what a choice does to later
        positions.

        Returns:
            Positions among the candidates [B, min(size, M)].
        """
        wanted = self.attractiveness(users, candidates)
        alike = self.similarity(candidates[:, :, None], candidates[:, None, :])
        fits = self.completes(candidates[:, :, None], candidates[:, None, :])
        chosen: list[Ints] = []
        free = np.ones(candidates.shape, bool)
        rows = np.arange(len(candidates))
        for _ in range(min(size, candidates.shape[1])):
            tired, completed = np.zeros(candidates.shape), np.zeros(candidates.shape)
            for earlier in chosen[max(0, len(chosen) - self.settings.fatigue_window) :]:
                tired = np.maximum(tired, alike[rows, earlier])
                completed = np.maximum(completed, fits[rows, earlier])
            fresh = wanted * (1 - self.settings.fatigue * tired)
            value = np.where(free, self._lifted(fresh, completed), -1.0)
            best = value.argmax(axis=1)
            free[rows, best] = False
            chosen.append(best)
        return np.stack(chosen, axis=1)

    # --- what users do ------------------------------------------------------------------------

    def act(self, users: Ints, items: Ints, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw feedback [B, N] of each kind for lists [B, N]; 0 where nothing was done."""
        s = self.settings
        seen = rng.random(items.shape) < self.examination(items.shape[1])
        wanted = self.wanted(users, items)
        click = seen & (rng.random(items.shape) < wanted)
        hide = seen & ~click & (rng.random(items.shape) < s.hide_rate)
        like = click & (rng.random(items.shape) < self._like(users, items))
        part = np.exp(rng.normal(self._watch_median(users, items), s.watch_sigma))
        duration = self.duration[items]
        watched = click * np.minimum(part * duration, duration)
        long_view = click & (watched >= np.minimum(s.long_view_seconds, duration))
        drawn = {
            "click": click,
            "long_view": long_view,
            "like": like,
            "watch_time": watched,
            "hide": hide,
        }
        return {kind: drawn[kind].astype(np.float64) for kind in KINDS}

    def _like(self, users: Ints, items: Ints) -> Floats:
        return _sigmoid(3 * self.affinity(users, items) + self.quality[items] - 4)

    def _watch_median(self, users: Ints, items: Ints) -> Floats:
        """Log of the median watched part of the video."""
        return self.settings.watch_match * (self.affinity(users, items) - 1)

    def _long_view(self, users: Ints, items: Ints) -> Floats:
        duration = self.duration[items]
        threshold = np.log(np.minimum(self.settings.long_view_seconds, duration) / duration)
        above = (self._watch_median(users, items) - threshold) / self.settings.watch_sigma
        return _normal_cdf(above)

    def _watch_time(self, users: Ints, items: Ints) -> Floats:
        """E[min(X, duration)], X / duration ~ LogNormal(mu, sigma): limited expected value."""
        mu, sigma = self._watch_median(users, items), self.settings.watch_sigma
        inside = np.exp(mu + sigma**2 / 2) * _normal_cdf((-mu - sigma**2) / sigma)
        return np.asarray(self.duration[items] * (inside + _normal_cdf(mu / sigma)))


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_cdf(x: Floats) -> Floats:
    return np.asarray(0.5 * _erfc(-x / math.sqrt(2)))


def _rows(ids: Sequence[str], prefix: str, size: int) -> Ints:
    try:
        rows = np.array([int(one.removeprefix(prefix)) for one in ids], np.int64)
        if all(one.startswith(prefix) for one in ids) and ((rows >= 0) & (rows < size)).all():
            return rows
    except ValueError:
        pass
    raise ValueError(f"ids are not of this world; allowed: {prefix}0 to {prefix}{size - 1}")

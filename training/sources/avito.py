"""Avito SearchStream as a data source: one search is one list of the ads that it showed.

HistCTR, the site's own estimate when the ad was shown, is a natural score of the previous stage:
it orders the candidates, and so the order of exposure (Position) stays out of the input. Only
contextual ads (ObjectType 3) have it, and only their clicks are known; other ads stand after
them in the given order, by AdID, without score.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.datasets import SPLITS, SplitTimes
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.reading import Strict, canonical_json
from contracts.releases import file_sha256, settings_of
from contracts.slates import Candidate, Feedback, Slate
from training.sources.avito_files import (
    UTC_OFFSET_HOURS,
    Search,
    SearchLookup,
    ShownAd,
    read_lookup,
    read_searches,
)
from training.sources.base import SourceError, Tally
from training.sources.days import day_ms
from training.sources.order_quality import OrderQuality
from training.sources.tables import find

USER_COLUMNS = {
    "user_agent": "UserAgentID",
    "user_agent_family": "UserAgentFamilyID",
    "user_agent_os": "UserAgentOSID",
    "user_device": "UserDeviceID",
}
FILES = ("trainSearchStream", "SearchInfo", "AdsInfo", "Category", "UserInfo")


class AvitoSettings(Strict, kw_only=True, frozen=True):
    """Settings of lists made from SearchStream. Days are of Moscow, and "until" is exclusive.

    Attributes:
        list_size: searches that show another number of ads are dropped.
        clicked_only: keep only searches with a click; 99 in 100 have none.
    """

    list_size: int = 5
    valid_from: str = "2015-05-17"
    test_from: str = "2015-05-19"
    test_until: str = "2015-05-21"
    clicked_only: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.list_size <= 64:
            raise ValueError(f"list_size is {self.list_size}; allowed: 2 to 64")
        names = ("valid_from", "test_from", "test_until")
        if sorted(days := [self.day(name) for name in names]) != days:
            raise ValueError(f"days must ascend: {', '.join(names)}")

    def day(self, name: str) -> int:
        """A day of these settings, in ms."""
        return day_ms(getattr(self, name), UTC_OFFSET_HOURS)


def avito_spec(list_size: int) -> FeatureSpec:
    """The draft feature spec."""
    return FeatureSpec(
        user=FeatureGroup(
            categorical=(
                Categorical(name="user", buckets=262_144, width=8),
                *(Categorical(name=name, buckets=8192, width=8) for name in USER_COLUMNS),
                Categorical(name="location", buckets=8192, width=8),
                Categorical(name="search_category", vocabulary=(), width=8),
                Categorical(name="logged_on", vocabulary=(), width=4),
                Categorical(name="has_query", vocabulary=(), width=4),
            ),
        ),
        item=FeatureGroup(
            categorical=(
                Categorical(name="item", buckets=262_144, width=8),
                Categorical(name="category", vocabulary=(), width=8),
                Categorical(name="parent_category", vocabulary=(), width=8),
                Categorical(name="same_category", vocabulary=(), width=4),
                Categorical(name="object_type", vocabulary=(), width=4),
            ),
            dense=(Dense(name="score"), Dense(name="price", transform="log1p")),
        ),
        list_size=list_size,
        feedback=(FeedbackKind(kind="click", type="binary"),),
        utility="click",
    )


class Avito:
    """Lists of Avito SearchStream."""

    name = "avito"

    def __init__(self, folder: Path, settings: AvitoSettings) -> None:
        self._settings = settings
        self.spec = avito_spec(settings.list_size)
        self.split_times = SplitTimes(
            valid_from=settings.day("valid_from"), test_from=settings.day("test_from")
        )
        self._paths = {stem: _only(folder, stem) for stem in FILES}

    def settings(self) -> dict[str, Any]:
        return settings_of(self._settings)

    def fingerprint(self) -> str:
        """SHA-256 over names and contents of the files that are read."""
        hashes = {path.name: file_sha256(path) for path in self._paths.values()}
        return hashlib.sha256(canonical_json(hashes)).hexdigest()

    def expected_lists(self) -> None:
        return None

    def slates(self, tally: Tally) -> Iterator[Slate]:
        """Searches in the order of their ids."""
        paths = self._paths
        tally.stage("reading ads and users")
        self._ads = read_lookup(paths["AdsInfo"], "AdID", ("CategoryID", "Price"), tally)
        self._users = read_lookup(paths["UserInfo"], "UserID", tuple(USER_COLUMNS.values()), tally)
        self._parents = read_lookup(paths["Category"], "CategoryID", ("ParentCategoryID",), tally)
        tally.stage("making lists")
        searches = SearchLookup(paths["SearchInfo"], tally)
        quality = {split: OrderQuality() for split in SPLITS}
        for search_id, ads in read_searches(paths["trainSearchStream"], tally):
            search = searches.of(search_id)
            why = self._refused(search, ads)
            if search is None or why:
                tally.drop(f"ad in a search {why}", len(ads))
                continue
            tally.keep("ads in lists", len(ads))
            slate = self._slate(search_id, search, ads)
            quality[self.split_times.of(slate.time)].add(slate, "click")
            yield slate
        for split, measured in quality.items():
            tally.facts.update(measured.facts(split))

    def _refused(self, search: Search | None, ads: list[ShownAd]) -> str:
        """Why a search makes no list, or nothing."""
        settings = self._settings
        if search is None:
            return "that SearchInfo does not have, or has without a time"
        if search.time >= settings.day("test_until"):
            return "after the test days"
        if len({ad.ad for ad in ads}) < len(ads) or len({ad.position for ad in ads}) < len(ads):
            return "that shows an ad, or fills a position, twice"
        if len(ads) != settings.list_size:
            return f"with another number of ads than {settings.list_size}"
        if settings.clicked_only and not any(ad.click for ad in ads):
            return "without a click"
        return ""

    def _slate(self, search_id: int, search: Search, ads: list[ShownAd]) -> Slate:
        given = sorted(ads, key=lambda ad: (-_or(ad.hist_ctr, -math.inf), ad.ad))
        index = {ad.ad: at for at, ad in enumerate(given)}
        shown = sorted(ads, key=lambda ad: ad.position)
        user = self._users.of(search.user)
        return Slate(
            request_id=f"a{search_id}",
            user=str(search.user),
            time=search.time,
            surface="search",
            release="production",
            candidates=tuple(self._candidate(ad, search) for ad in given),
            exposed=tuple(index[ad.ad] for ad in shown),
            user_features={
                **{name: _category(user[column]) for name, column in USER_COLUMNS.items()},
                "location": _category(search.location),
                "search_category": _category(search.category),
                "logged_on": _category(search.logged_on),
                "has_query": str(search.has_query).lower(),
            },
            feedback=tuple(
                Feedback(position=position, kind="click", value=1.0, time=search.time)
                for position, ad in enumerate(shown)
                if ad.click
            ),
        )

    def _candidate(self, ad: ShownAd, search: Search) -> Candidate:
        info = self._ads.of(ad.ad)
        category, price = info["CategoryID"], info["Price"]
        parent = None
        if category is not None:
            parent = self._parents.of(int(category))["ParentCategoryID"]
        known = category is not None and search.category is not None
        return Candidate(
            item=str(ad.ad),
            score=ad.hist_ctr,
            features={
                "category": _category(category),
                "parent_category": _category(parent),
                "same_category": str(category == search.category).lower() if known else None,
                "object_type": str(ad.object_type),
                "price": price if price is not None and price >= 0 else None,
            },
        )


def _only(folder: Path, stem: str) -> Path:
    paths = find(folder, stem, "tsv")
    if len(paths) > 1:
        raise SourceError(f"{folder}: more than one {stem} file; keep one")
    return paths[0]


def _category(value: float | None) -> str | None:
    return None if value is None else str(int(value))


def _or(value: float | None, other: float) -> float:
    return other if value is None else value

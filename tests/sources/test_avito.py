"""Avito SearchStream, on files in its documented form."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.slates import Slate
from tests.sources.avito_files import SEARCHES, STREAM, info, page, search, write
from training.sources import tables
from training.sources.avito import Avito, AvitoSettings
from training.sources.base import SourceError, Tally

MOSCOW = timezone(timedelta(hours=3))


def slates(folder: Path, **changes: Any) -> tuple[list[Slate], Tally]:
    tally = Tally()
    source = Avito(folder, msgspec.structs.replace(AvitoSettings(), **changes))
    return list(source.slates(tally)), tally


def test_one_search_by_hand(tmp_path: Path) -> None:
    rows = list(reversed(search(5, page(100, click=1))))  # the file need not follow Position
    (one,), tally = slates(write(tmp_path, rows, [info(4), info(5, "2015-05-01 10:20:30.0")]))
    assert (one.request_id, one.user) == ("a5", "7")
    assert datetime.fromtimestamp(one.time / 1000, MOSCOW).isoformat() == (
        "2015-05-01T10:20:30+03:00"
    )
    # Given: by HistCTR, then the ads without one by AdID. Exposed: by Position.
    assert [c.item for c in one.candidates] == ["103", "100", "101", "102", "104"]
    assert [c.score for c in one.candidates] == [0.04, 0.01, None, None, None]
    assert [one.candidates[i].item for i in one.exposed] == ["100", "101", "102", "103", "104"]
    assert [(f.position, f.kind, f.value) for f in one.feedback] == [(0, "click", 1.0)]
    assert one.candidates[0].features == {
        "category": "21",
        "parent_category": "6",
        "same_category": "false",
        "object_type": "3",
        "price": 1030.0,
    }
    assert one.candidates[1].features == {
        "category": None,
        "parent_category": None,
        "same_category": None,
        "object_type": "3",
        "price": None,
    }
    assert one.user_features == {
        "user_agent": "43517",
        "user_agent_family": "9",
        "user_agent_os": "20",
        "user_device": "1019",
        "location": "3960",
        "search_category": "20",
        "logged_on": "1",
        "has_query": "true",
    }
    assert tally.kept == {"ads in lists": 5}
    assert not tally.dropped


def test_every_ad_is_in_a_list_or_dropped_with_its_reason(tmp_path: Path) -> None:
    bad_position = [(130, 0, 1, "", ""), *page(110)[1:]]
    stream = [
        *search(1, page(100)),
        *search(2, page(100)[:4]),
        *search(3, page(105)),
        *search(4, [*page(105)[:4], (105, 8, 3, 0.1, 0)]),
        *search(5, [*page(105)[:4], (109, 1, 3, 0.1, 0)]),
        *search(6, page(105)),
        *search(7, bad_position),
        *search(8, [(130, 1, 3, 1.5, 0), (131, 2, 3, 0.5, ""), (132, 3, 9, "", "")]),
        *search(9, [(130, 1, 3, "much", 0)]),
        *search(10, page(110)),
    ]
    searches = [
        info(1),
        info(2),
        info(4),
        info(5),
        info(6, "2015-05-21 00:00:00.0"),
        info(7),
        info(8),
        info(9),
        info(10, "yesterday"),
    ]
    found, tally = slates(write(tmp_path, stream, searches))
    assert [one.request_id for one in found] == ["a1"]
    assert tally.dropped == {
        "ad in a search with another number of ads than 5": 4 + 4,
        "ad in a search that SearchInfo does not have, or has without a time": 5 + 5,
        "ad in a search that shows an ad, or fills a position, twice": 5 + 5,
        "ad in a search after the test days": 5,
        "trainSearchStream.tsv: Position is below 1": 1,
        "trainSearchStream.tsv: HistCTR is not in 0 to 1": 1,
        "trainSearchStream.tsv: contextual ad with IsClick neither 0 nor 1": 1,
        "trainSearchStream.tsv: ObjectType is none of 1, 2, 3": 1,
        "trainSearchStream.tsv: HistCTR is not a number": 1,
        "SearchInfo.tsv: SearchDate is not a time": 1,
    }
    ads = tally.kept["ads in lists"] + sum(tally.dropped.values())
    assert ads - 1 == len(stream)  # the last reason counts a search, not an ad


def test_splits_follow_search_date(tmp_path: Path) -> None:
    days = ("2015-05-16 23:59:59.0", "2015-05-17 00:00:00.0", "2015-05-19 00:00:00.0")
    stream = [row for number in range(3) for row in search(number, page(100))]
    folder = write(tmp_path, stream, [info(number, day) for number, day in enumerate(days)])
    times = Avito(folder, AvitoSettings()).split_times
    found, _ = slates(folder)
    assert [times.of(one.time) for one in found] == ["train", "valid", "test"]


def test_the_given_order_tells_nothing_of_the_exposed_one(tmp_path: Path) -> None:
    """Every order in which three ads can be shown gives the same request."""
    ads = [(100, 3, 0.02, 0), (101, 3, 0.02, 1), (102, 1, "", "")]
    requests = []
    for number, order in enumerate(itertools.permutations(range(3))):
        shown = [(ads[i][0], position + 1, *ads[i][1:]) for position, i in enumerate(order)]
        folder = write(tmp_path / str(number), search(1, shown), [info(1)])
        (one,), _ = slates(folder, list_size=3)
        requests.append((one.candidates, one.user_features))
        assert [ads.index(ads[i]) for i in order] == [
            [a[0] for a in ads].index(int(one.candidates[i].item)) for i in one.exposed
        ]
    assert all(request == requests[0] for request in requests)


@pytest.mark.parametrize("wrong", [STREAM, SEARCHES])
def test_files_that_do_not_ascend_are_refused(tmp_path: Path, wrong: str) -> None:
    stream, searches = ([2, 1, 3], [1, 2, 3]) if wrong == STREAM else ([1, 2, 3], [2, 1, 3])
    rows = [row for number in stream for row in search(number, page(100))]
    folder = write(tmp_path, rows, [info(number) for number in searches])
    with pytest.raises(SourceError, match=f"{wrong}: SearchID 1 comes after 2; the file must"):
        slates(folder)


def test_order_is_checked_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 200)
    numbers = [*range(2, 80), 1]
    stream = [row for number in numbers for row in search(number, page(100))]
    folder = write(tmp_path, stream, [info(number) for number in sorted(numbers)])
    with pytest.raises(SourceError, match="SearchID 1 comes after 79"):
        slates(folder)


def test_searches_may_lie_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = [row for number in range(50) for row in search(number, page(100, click=number % 2))]
    folder = write(tmp_path, stream, [info(number) for number in range(50)])
    whole, _ = slates(folder)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 700)
    parts, _ = slates(folder)
    assert len(whole) == 50
    assert parts == whole
    assert len(slates(folder, clicked_only=True)[0]) == 25


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for name in (STREAM, SEARCHES, "AdsInfo.tsv.gz", "Category.tsv", "UserInfo.tsv"):
        folder = write(tmp_path / name, search(1, page(100)), [info(1)])
        (folder / name).unlink()
        with pytest.raises(SourceError, match=f"no file {name.split('.')[0]}"):
            slates(folder)
    folder = write(tmp_path / "column", search(1, page(100)), [info(1)])
    text = (folder / STREAM).read_text().replace("HistCTR", "CTR")
    (folder / STREAM).write_text(text)
    with pytest.raises(SourceError, match=r"'HistCTR'.*columns needed"):
        slates(folder)


def test_unknown_user_and_ad(tmp_path: Path) -> None:
    folder = write(tmp_path, search(1, page(900)), [info(1, UserID=8, SearchQuery="")])
    (one,), _ = slates(folder)
    assert one.user_features["user_agent"] is None
    assert one.user_features["has_query"] == "false"
    assert one.candidates[0].features["price"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid_from": "2015-05-20"}, "days must ascend"),
        ({"list_size": 65}, "allowed: 2 to 64"),
        ({"test_until": "soon"}, "'soon' is not a day"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AvitoSettings(**changes)

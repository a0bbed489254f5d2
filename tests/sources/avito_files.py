"""Small files in the documented form of Avito Context Ad Clicks."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

Row = dict[str, Any]
STREAM, SEARCHES = "trainSearchStream.tsv", "SearchInfo.tsv"


def search(search_id: int, ads: list[tuple[Any, ...]]) -> list[Row]:
    """Rows of SearchStream from (ad, position, type, rate, click)."""
    names = ("AdID", "Position", "ObjectType", "HistCTR", "IsClick")
    return [{"SearchID": search_id, **dict(zip(names, ad))} for ad in ads]


def info(search_id: int, date: str = "2015-05-01 10:00:00.0", **changes: Any) -> Row:
    """A row of SearchInfo."""
    return {
        "SearchID": search_id,
        "SearchDate": date,
        "IPID": 1,
        "UserID": 7,
        "IsUserLoggedOn": 1,
        "SearchQuery": 'диван 2"',
        "SearchLocationID": 3960,
        "SearchCategoryID": 20,
        "SearchParams": "{5:'Детская одежда', 34:'Для мальчиков'}",
        **changes,
    }


def page(first_ad: int, click: int = 0) -> list[tuple[Any, ...]]:
    """Five ads as a page shows them: contextual at positions 1 and 7, the rest not."""
    return [
        (first_ad, 1, 3, 0.01, click),
        (first_ad + 1, 2, 2, "", ""),
        (first_ad + 2, 6, 1, "NULL", "NULL"),
        (first_ad + 3, 7, 3, 0.04, 0),
        (first_ad + 4, 8, 1, "", ""),
    ]


def write(
    folder: Path, stream: list[Row], searches: list[Row], ads: range = range(100, 140)
) -> Path:
    """All files of a data set; ad 100 has neither category nor price."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tsv(folder / STREAM, stream)
    write_tsv(folder / SEARCHES, searches)
    write_tsv(
        folder / "AdsInfo.tsv.gz",
        [
            {
                "AdID": ad,
                "LocationID": "",
                "CategoryID": "" if ad == 100 else 20 + ad % 2,
                "Params": "",
                "Price": "" if ad == 100 else 10.0 * ad,
                "Title": f'Монитор 24" № {ad}',
                "IsContext": 1,
            }
            for ad in reversed(ads)
        ],
    )
    write_tsv(
        folder / "Category.tsv",
        [
            {"CategoryID": c, "Level": 3, "ParentCategoryID": 6, "SubcategoryID": c}
            for c in (20, 21)
        ],
    )
    write_tsv(
        folder / "UserInfo.tsv",
        [
            {
                "UserID": 7,
                "UserAgentID": 43517,
                "UserAgentOSID": 20,
                "UserDeviceID": 1019,
                "UserAgentFamilyID": 9,
            }
        ],
    )
    return folder


def write_tsv(path: Path, rows: list[Row]) -> None:
    lines = ["\t".join(rows[0])] + ["\t".join(str(v) for v in row.values()) for row in rows]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)

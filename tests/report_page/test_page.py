"""What the page says, without a browser: escaping, completeness, what is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.analysis.status import ExperimentStatus
from deploy.report_page import page_of, write_page
from deploy.report_page.markup import tag
from deploy.report_page.numbers import lift, number, p_value, share, span, tick
from deploy.report_page.scales import nice_ticks, time_ticks
from deploy.report_page.style import STYLE
from tests.report_page import statuses

ALL = [statuses.winning(), statuses.broken(), statuses.empty()]
EVIL = "<script>alert('x')</script>\"'&<img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """Elements, text and attributes of a document, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def evil(status: ExperimentStatus) -> ExperimentStatus:
    """Every text of a status is made hostile, but for words from a closed list."""
    closed = {"role", "better", "improvement", "state", "scale", "verdict"}

    def spoil(value: object, key: str = "") -> object:
        if isinstance(value, dict):
            named = key in ("weights", "observed", "expected")
            return {EVIL + k if named else k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [spoil(one, key) for one in value]
        return EVIL + value if value and isinstance(value, str) and key not in closed else value

    return msgspec.convert(spoil(msgspec.to_builtins(status)), ExperimentStatus)


@pytest.mark.parametrize("status", ALL, ids=lambda status: status.name)
def test_markup_is_sound_and_the_same_with_hostile_names(status: ExperimentStatus) -> None:
    page = page_of(status)
    fair, foul = Outline(page), Outline(page_of(evil(status)))
    assert fair.open == foul.open == []
    assert fair.tags == foul.tags
    assert "script" not in fair.tags
    assert [name for _, name, _ in fair.attributes] == [name for _, name, _ in foul.attributes]
    assert not any(name.startswith("on") for _, name, _ in foul.attributes)
    assert EVIL + status.name in foul.said


@given(st.text(), st.text())
def test_text_stays_text(text: str, value: str) -> None:
    made = Outline(tag("p", text, title=value))
    assert made.tags == ["p"]
    assert "".join(made.said) == text
    # A parser reads the line ends of attributes in one way.
    assert made.attributes == [("p", "title", value)]


@pytest.mark.parametrize("status", ALL, ids=lambda status: status.name)
def test_everything_is_said(status: ExperimentStatus) -> None:
    said = " ".join(Outline(page_of(status)).said)
    for words in status.words:
        assert words in said
    for arm in status.arms:
        assert arm.name in said
        assert arm.release in said
    for rail in status.guardrails:
        assert rail.why in said
        assert rail.state in said
    for one in status.segments:
        assert f"{one.segment}: {one.value}" in said
    for release in status.lineage:
        assert release.release in said
    for one in status.lifts:
        assert one.why in said
    assert status.srm.ok is True or status.srm.why in said
    assert "nan" not in said.lower()
    assert "None" not in said


def test_a_chart_for_each_treatment_in_three_sizes_with_all_ramps() -> None:
    outline = Outline(page_of(statuses.winning()))
    ramps = [value for _, name, value in outline.attributes if (name, value) == ("class", "ramp")]
    assert len(ramps) == 3 * 3
    clips = [
        value for _, name, value in outline.attributes if name == "id" and "clip" in str(value)
    ]
    assert len(clips) == len(set(clips)) == 3
    bands = [
        1 for one in Outline(page_of(statuses.broken())).attributes if one[1:] == ("class", "band")
    ]
    assert len(bands) == 2 * 3


def test_the_truth_of_a_simulated_world_is_drawn_where_it_is_known() -> None:
    status = statuses.winning()
    arm = status.lifts[0].arm
    known = Outline(page_of(status, {arm: 0.031}))
    lines = [1 for one in known.attributes if one[1:] == ("class", "truth")]
    assert len(lines) == 3
    assert "the truth of the simulated world is +3.10" in " ".join(known.said)
    unknown = Outline(page_of(status, {"another": 0.031}))
    assert not [1 for one in unknown.attributes if one[1:] == ("class", "truth")]
    assert "simulated" not in " ".join(unknown.said)


def test_one_look_and_absolute_effects() -> None:
    """On the first look there is no line yet, and without a control's mean no relative effect."""
    base = statuses.winning()
    first = base.lifts[0].relative
    assert first is not None
    one = msgspec.structs.replace(first, sequence=first.sequence[:1])
    lifts = tuple(
        msgspec.structs.replace(each, relative=None, absolute=one, why="the control's mean is 0")
        for each in base.lifts
    )
    said = " ".join(Outline(page_of(msgspec.structs.replace(base, lifts=lifts))).said)
    assert "absolute lift of clicks after 1 looks" in said


def test_bounds_that_are_not_finite_do_not_break_the_chart() -> None:
    base = statuses.winning()
    effect = base.lifts[0].relative
    assert effect is not None
    wild = msgspec.structs.replace(effect.sequence[0], low=float("-inf"), high=float("inf"))
    wilder = msgspec.structs.replace(effect, sequence=(wild, *effect.sequence[1:]))
    lifts = (msgspec.structs.replace(base.lifts[0], relative=wilder), *base.lifts[1:])
    page = page_of(msgspec.structs.replace(base, lifts=lifts))
    paths = [value for _, name, value in Outline(page).attributes if name == "d"]
    assert paths
    assert not any(re.search("inf|nan", str(value)) for value in paths)


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(statuses.empty(), path)
    old = path.read_text()
    with pytest.raises(OSError, match="no-such"):
        write_page(statuses.winning(), tmp_path / "no-such" / "page.html")
    write_page(statuses.winning(), path)
    assert path.read_text() != old
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_numbers() -> None:
    assert lift(0.02134, "relative") == "+2.13\u202f%"
    assert lift(-0.5, "relative") == "\u221250.0\u202f%"
    assert lift(0.0, "absolute") == "0"
    assert tick(-0.02, 0.02, "relative") == "\u22122\u202f%"
    assert share(0.1) == "10\u202f%"
    assert share(0.0008) == "0.08\u202f%"
    assert number(12345.6) == "12,346"
    assert number(None) == lift(None, "relative") == p_value(None)
    assert p_value(3.6e-14) == "< 0.0001"
    assert [span(ms) for ms in (60_000, 7_200_000, 302_400_000)] == [
        "1 minute",
        "2 hours",
        "3.5 days",
    ]


@given(
    st.floats(-1e6, 1e6, allow_nan=False),
    st.floats(1e-6, 1e6, allow_nan=False),
    st.integers(2, 8),
)
def test_ticks_are_few_and_within(low: float, extent: float, about: int) -> None:
    ticks = nice_ticks(low, low + extent, about)
    slack = 1e-6 * extent + 1e-9 * abs(low)
    assert 1 <= len(ticks) <= about + 2
    assert all(low - slack <= value <= low + extent + slack for value in ticks)


@given(st.integers(0, 2**41), st.integers(60_000, 3 * 10**10), st.integers(2, 12))
def test_time_ticks_are_few_and_within(first: int, extent: int, at_most: int) -> None:
    ticks = time_ticks(first, first + extent, at_most)
    assert len(ticks) <= at_most + 1
    assert all(first <= value <= first + extent for value in ticks)


def colours() -> Iterator[tuple[str, dict[str, str]]]:
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.S)
    names = ("light", "dark", "print")
    for name, block in zip(names, blocks, strict=True):
        yield name, dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6,8})", block))


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("name", "of"), list(colours()))
def test_letters_stand_out(name: str, of: dict[str, str]) -> None:
    pairs = [(ink, ground) for ink in ("ink", "muted") for ground in ("page", "card")]
    pairs += [(tone, "card") for tone in ("accent", "good", "bad", "warn")]
    pairs += [(tone, f"{tone}-soft") for tone in ("good", "bad", "warn")] + [("muted", "soft")]
    for ink, ground in pairs:
        assert contrast(of[ink], of[ground]) >= 4.5, (name, ink, ground)

"""The page in a real Chromium: it opens in silence, asks for nothing, and fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.analysis.status import ExperimentStatus
from deploy.report_page import write_page
from tests.report_page import statuses
from tests.report_page.browser import Browser
from tests.report_page.test_page import EVIL, evil

pytestmark = pytest.mark.timeout(180)
ALL = [statuses.winning(), statuses.broken(), statuses.empty()]
PHONE, DESK = 390, 1280
#: In CSS pixels, with those around which the layout changes.
WIDTHS = (320, PHONE, 641, 769, 961, DESK)

#: Sizes in CSS pixels of all text that is shown; what an SVG scales is counted as it is seen.
SMALLEST = """
(() => {
  let smallest = 1e9;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (element.tagName === 'title') continue;
    const svg = element.closest('svg');
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    smallest = Math.min(smallest, scale * parseFloat(getComputedStyle(element).fontSize));
  }
  return smallest;
})()
"""
#: Elements that hold letters and stick out of the window.
OUTSIDE = """
[...document.querySelectorAll('body *')]
  .filter(e => e.getClientRects().length && !e.closest('thead') && !e.closest('.scroll'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 120))
"""
#: Words of a chart that overlap one another.
COLLIDING = """
[...document.querySelectorAll('svg.chart')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(t => [t, t.getBoundingClientRect()])
    .filter(([, b]) => b.width);
  const out = [];
  boxes.forEach(([t, a], i) => boxes.slice(i + 1).forEach(([u, b]) => {
    if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
      out.push(t.textContent + ' / ' + u.textContent);
  }));
  return out;
})
"""
#: Words of ordinary length that are broken over two lines.
BROKEN = r"""
(() => {
  const out = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.parentElement;
    if (!element.getClientRects().length || element.closest('svg')) continue;
    if (element.closest('thead') && innerWidth <= 768) continue;
    for (const word of node.data.matchAll(/[\w.,%]{2,16}/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const tops = [...range.getClientRects()].map(r => Math.round(r.top));
      if (new Set(tops).size > 1) out.push(word[0]);
    }
  }
  return out;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.mark.parametrize("status", ALL, ids=lambda status: status.name)
@pytest.mark.parametrize("width", WIDTHS)
def test_opens_fits_and_fetches_nothing(
    browser: Browser, status: ExperimentStatus, width: int, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    write_page(status, page)
    browser.open(page, width)
    assert browser.complaints == []
    assert browser.requests == [page.resolve().as_uri()]
    assert browser.evaluate("document.title") == f"{status.name}: {status.verdict}"
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OUTSIDE) == []
    assert browser.evaluate(COLLIDING) == []
    assert browser.evaluate(BROKEN) == []
    assert browser.evaluate(SMALLEST) >= 12
    # The style came in: its hash in the policy is right.
    assert (
        browser.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "12px"
    )


def test_one_chart_is_shown_for_each_treatment(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page(statuses.broken(), page)
    shown = (
        "[...document.querySelectorAll('svg.chart')].filter(c => c.getClientRects().length).length"
    )
    for width in WIDTHS:
        browser.open(page, width)
        assert browser.evaluate(shown) == 2


def test_dark_is_dark(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page(statuses.winning(), page)
    grounds = []
    for scheme in ("light", "dark"):
        browser.open(page, DESK, scheme=scheme)
        grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(245, 246, 248)", "rgb(17, 21, 27)"]


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for status in ALL:
        write_page(evil(status), page)
        browser.open(page, DESK)
        assert browser.evaluate("document.documentElement.scrollWidth") <= DESK
        browser.open(page, PHONE)
        assert browser.complaints == []
        assert browser.requests == [page.resolve().as_uri()]
        assert browser.evaluate("document.scripts.length + document.images.length") == 0
        assert browser.evaluate("document.querySelector('h1').textContent") == EVIL + status.name
        assert browser.evaluate("document.documentElement.scrollWidth") <= PHONE


def test_the_policy_stops_what_would_get_in(browser: Browser, tmp_path: Path) -> None:
    """The last line of defence, and proof that this test would notice a script or a request."""
    page = tmp_path / "page.html"
    write_page(statuses.empty(), page)
    inserted = "<script>document.title = 'ran'</script><img src='http://127.0.0.1:9/x.png'></body>"
    page.write_text(page.read_text().replace("</body>", inserted))
    browser.open(page, PHONE)
    assert browser.evaluate("document.title") == "new: wait"
    assert len([one for one in browser.complaints if "Content Security Policy" in one]) == 2


def test_a_screen_reader_finds_its_way(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page(statuses.winning(), page)
    browser.open(page, DESK)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored")
    ]
    roles = [role for role, _ in named]
    assert ("heading", "fresh-feed") in named
    assert ("region", "Lift over time") in named
    assert any(role in ("image", "img") and "always valid" in name for role, name in named)
    assert roles.count("table") == 5
    assert {"columnheader", "rowheader"} <= set(roles)
    images = [name for role, name in named if role in ("image", "img")]
    assert images
    assert all(images)

"""The page put together. Nothing in it runs or is fetched: a policy in its head forbids both."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from deploy.analysis.status import ExperimentStatus
from deploy.report_page.arms import arms
from deploy.report_page.lifts import charts, metrics
from deploy.report_page.lineage import lineage
from deploy.report_page.markup import Html, joined, tag
from deploy.report_page.segments import segments
from deploy.report_page.soundness import guardrails, sample_ratio
from deploy.report_page.style import STYLE
from deploy.report_page.summary import header, tiles, verdict


def page_of(status: ExperimentStatus, truth: Mapping[str, float] | None = None) -> str:
    """The report of an experiment as one HTML document.

    Args:
        truth: relative lift of the primary metric by arm, where it is known: in a simulated world.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{status.name}: {status.verdict}"),
        tag("style", Html(STYLE)),
    )
    body = tag(
        "body",
        header(status),
        tag(
            "main",
            verdict(status),
            tiles(status),
            charts(status, truth or {}),
            metrics(status),
            arms(status),
            guardrails(status),
            sample_ratio(status),
            segments(status),
            lineage(status),
        ),
    )
    return joined(Html("<!doctype html>\n"), tag("html", head, body, lang="en"), "\n")


def write_page(
    status: ExperimentStatus, path: Path, truth: Mapping[str, float] | None = None
) -> None:
    """Write the report, in one rename: whoever has it open never loads half a page.

    Raises:
        OSError: it cannot be written; the old page stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        aside.write_text(page_of(status, truth), encoding="utf-8")
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _policy() -> str:
    """Nothing from anywhere, but for the style above, known by its hash, and the empty icon."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )

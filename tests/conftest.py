"""What all tests share: one thread each, hypothesis profiles, shared data, and no silent skips."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

# Before torch and numpy are imported, here and in every process that a test starts: two cores
# are shared by the servers and trainers of a test, and more threads only make them wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings

CONTINUOUS_INTEGRATION = os.environ.get("CI", "").lower() in ("1", "true")

#: A reason to skip must begin with one of these where CI=true; every other skip is a failure,
#: for a part that CI can have and has not is a hole in what it vouches for.
MAY_BE_ABSENT = ("needs data:", "needs GPU:")

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("local", deadline=None)
# The same examples each time: a red run is then the fault of the change under test.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if CONTINUOUS_INTEGRATION else "local")


@pytest.fixture(scope="session")
def kuairand() -> Path:
    """Folder of KuaiRand-Pure beside the checkout; without it the test skips, in CI too."""
    folder = ROOT.parent / "shared" / "data" / "kuairand-pure"
    if not folder.is_dir():
        pytest.skip("needs data: ../shared/data/kuairand-pure is not there")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import everything under a wide terminal.

    Consoles take their width when they are made, at import: what a test looks for is then in one
    line, however long the path of its temporary folder is.
    """
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"
    try:
        return (yield)
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip that is not allowed into a failure."""
    if not CONTINUOUS_INTEGRATION or not report.skipped or hasattr(report, "wasxfail"):
        return
    place = report.longrepr
    reason = (place[2] if isinstance(place, tuple) else str(place)).removeprefix("Skipped: ")
    if not reason.startswith(MAY_BE_ABSENT):
        report.outcome = "failed"
        allowed = " or ".join(repr(prefix) for prefix in MAY_BE_ABSENT)
        report.longrepr = (
            f"skipped under CI: {reason}\nProvide what it needs, or, where CI cannot have it, "
            f"begin the reason with {allowed}."
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report

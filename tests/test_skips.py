"""The rule of tests/conftest.py: under CI only an absent dataset or GPU may be skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
REASONS = {
    "data": 'pytest.skip("needs data: not there")',
    "gpu": 'pytest.skip("needs GPU: none")',
    "server": 'pytest.skip("no server")',
    "import": 'pytest.importorskip("a_module_that_nobody_has")',
}


def run(folder: Path, body: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(f"import pytest\n{body}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder)],
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("ci", "failed", "skipped"), [("", None, "4 skipped"), ("true", "2 failed", "2 skipped")]
)
def test_skip_within_a_test(tmp_path: Path, ci: str, failed: str | None, skipped: str) -> None:
    tests = "".join(f"def test_{name}():\n    {line}\n" for name, line in REASONS.items())
    result = run(tmp_path, tests, ci)
    closing = result.stdout.strip().splitlines()[-1]
    assert result.returncode == (1 if failed else 0), result.stdout
    assert skipped in closing
    assert failed is None or failed in closing
    assert ("skipped under CI: no server" in result.stdout) == bool(failed)


@pytest.mark.parametrize("ci", ["", "true"])
def test_skip_of_a_whole_file(tmp_path: Path, ci: str) -> None:
    result = run(tmp_path, REASONS["import"] + "\ndef test_one(): pass\n", ci)
    assert (result.returncode in (0, 5)) == (not ci), result.stdout
    assert ("skipped under CI" in result.stdout) == bool(ci)


def test_marks_and_expected_failures(tmp_path: Path) -> None:
    body = (
        "@pytest.mark.skipif(True, reason='needs GPU: none')\ndef test_a(): pass\n"
        "@pytest.mark.xfail\ndef test_b(): assert False\n"
    )
    assert run(tmp_path, body, "true").returncode == 0
    body = "@pytest.mark.skip(reason='later')\ndef test_a(): pass\n"
    assert run(tmp_path, body, "true").returncode == 1

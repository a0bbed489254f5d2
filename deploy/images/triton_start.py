"""Start tritonserver with the releases that the routing names: the Triton image's entry point.

    triton_start.py --repository /models --routing FILE [--routing FILE] -- TRITON'S OPTIONS

A pod that starts later then serves what those do that were told release by release. It runs in the
image, which holds nothing of the project, so it needs Python alone. Exit code 2: no routing that
can be read, or the champion is not in the repository; the message says which and what to do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

#: What an arm's release says where it follows the champion.
CHAMPION = "champion"


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


def read_routings(paths: list[Path]) -> list[dict[str, Any]]:
    """The routing files that are there and can be read, in order; the first one is in force.

    Raises:
        StartError: there is none.
    """
    found, causes = [], []
    for path in paths:
        try:
            routing = json.loads(path.read_text(encoding="utf-8"))
            releases_of(routing)
            found.append(routing)
        except (OSError, ValueError, KeyError, TypeError) as error:
            causes.append(f"{path}: {error!r}")
    for cause in causes:
        print(f"routing passed over: {cause}", file=sys.stderr)
    if not found:
        raise StartError(
            "no routing can be read; write one with: python deploy/rollout.py render "
            f"({'; '.join(causes)})"
        )
    return found


def releases_of(routing: dict[str, Any]) -> list[str]:
    """Every release that a routing sends requests to, the champion first."""
    arms = [arm for experiment in routing.get("experiments", ()) for arm in experiment["arms"]]
    named = [arm["release"] for arm in arms if arm["release"] != CHAMPION]
    return list(dict.fromkeys([str(routing["champion"]), *map(str, named)]))


def model_of(release: str) -> str:
    """The ensemble of a release; loading it loads its steps."""
    return f"gref_{release}"


def server_command(
    server: str, repository: Path, routings: list[dict[str, Any]], options: list[str]
) -> list[str]:
    """tritonserver's command line.

    Raises:
        StartError: the repository does not hold the champion. Another release that is missing is
            said and left out, so that a candidate cannot keep the champion from serving.
    """
    champion = str(routings[0]["champion"])
    if not (repository / model_of(champion) / "config.pbtxt").is_file():
        raise StartError(
            f"{repository} holds no {model_of(champion)}, the champion; install it there: "
            f"python training/releases.py install {champion} --repository {repository}"
        )
    releases = dict.fromkeys(name for routing in routings for name in releases_of(routing))
    there = [r for r in releases if (repository / model_of(r) / "config.pbtxt").is_file()]
    for missing in [release for release in releases if release not in there]:
        print(f"not in {repository}, so not loaded: {model_of(missing)}", file=sys.stderr)
    load = [f"--load-model={model_of(release)}" for release in there]
    return [server, f"--model-repository={repository}", *options, *load]


def main(arguments: list[str]) -> int:
    """Replace this process by tritonserver; returns only where that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, required=True, help="what Triton serves from")
    parser.add_argument("--routing", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--server", default="tritonserver", help="the server's binary")
    parser.add_argument("options", nargs="*", help="tritonserver's own, after --")
    told = parser.parse_args(arguments)
    try:
        routings = read_routings(told.routing)
        command = server_command(told.server, told.repository, routings, told.options)
        os.execvp(command[0], command)  # noqa: S606
    except (StartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

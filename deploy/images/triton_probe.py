"""Ask Triton a question: the probes of the Triton image.

    triton_probe.py ready|live [--routing routing.json ...]   the champion of the first routing
    triton_probe.py ready --release r0007                     this release

Triton 2.51 goes on calling a model ready whose process has died, and its health endpoints agree. So
both probes send one made-up request to the champion, over HTTP on the loopback address:

ready   a list must come back. Where the champion is not loaded here (the routing is ahead of this
        server), another release of the routing will do, so that a bad routing cannot take every
        server out at once.
live    fails only where the engine is dead or does not answer at all: a full queue is an answer,
        and a champion that is not loaded is no reason to start the server anew.

It needs Python alone. Exit code 0: yes; 1: no, and why on stdout; 2: bad arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from math import prod
from pathlib import Path
from typing import Any

#: Length of the axes that the model leaves open. The candidate axis is one of its buckets in
#: practice; any length is answered.
OPEN_AXIS = 16
BUSY = 503  # a full queue
NO_SUCH_MODEL = (400, 404)
#: What stands for "nothing" in a made-up request; all else is 0, which every encoder takes.
FILL = {"COUNT": 1, "PINNED": -1, "GROUP": -1}


class NoAnswer(Exception):
    """Triton did not give a list.

    Attributes:
        status: of HTTP; 0 where there was no answer at all.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"{status or 'no answer'}: {why}")
        self.status = status
        self.why = why

    @property
    def not_loaded(self) -> bool:
        return self.status in NO_SUCH_MODEL and "unknown model" in self.why

    @property
    def busy(self) -> bool:
        return self.status == BUSY or "maximum queue size" in self.why


def ask(url: str, release: str, timeout_s: float) -> None:
    """Send a release one made-up request.

    Raises:
        NoAnswer: no list came back.
    """
    model = f"{url}/v2/models/gref_{release}"
    inputs = [_tensor(one) for one in _call(model, None, timeout_s)["inputs"]]
    answer = _call(f"{model}/infer", {"inputs": inputs}, timeout_s)
    order = next(one["data"] for one in answer["outputs"] if one["name"] == "ORDER")
    if not order or order[0] != 0:
        raise NoAnswer(200, f"the list for one candidate is {order}")


def ready(url: str, releases: list[str], timeout_s: float) -> None:
    """Raise NoAnswer unless the first release answers, or, where it is not loaded, another."""
    try:
        ask(url, releases[0], timeout_s)
    except NoAnswer as champion:
        if not champion.not_loaded:
            raise
        for release in releases[1:]:
            try:
                ask(url, release, timeout_s)
            except NoAnswer:
                continue
            print(f"{releases[0]} is not loaded here; {release} answers")
            return
        raise


def live(url: str, releases: list[str], timeout_s: float) -> None:
    """Raise NoAnswer where the first release is loaded and dead, or nobody answers."""
    try:
        ask(url, releases[0], timeout_s)
    except NoAnswer as error:
        if not (error.not_loaded or error.busy):
            raise
        print(f"alive: {error}")


def releases_of(paths: list[Path]) -> list[str]:
    """The champion and the other releases of the first routing that can be read."""
    for path in paths:
        try:
            routing = json.loads(path.read_text(encoding="utf-8"))
            arms = [arm for one in routing.get("experiments", ()) for arm in one["arms"]]
            named = [str(arm["release"]) for arm in arms if arm["release"] != "champion"]
            return list(dict.fromkeys([str(routing["champion"]), *named]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{path}: passed over: {error!r}")
    return []


def _tensor(described: dict[str, Any]) -> dict[str, Any]:
    name, shape = described["name"], [int(axis) for axis in described["shape"]]
    shape = [1] + [OPEN_AXIS if axis < 0 else axis for axis in shape[1:]]
    fill = float(FILL.get(name, 0)) if described["datatype"] == "FP32" else FILL.get(name, 0)
    data = [fill] * prod(shape)
    return {"name": name, "datatype": described["datatype"], "shape": shape, "data": data}


def _call(url: str, body: Any, timeout_s: float) -> Any:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(  # noqa: S310 (http on the loopback address)
            urllib.request.Request(url, data=data),  # noqa: S310
            timeout=timeout_s,
        ) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        raise NoAnswer(error.code, error.read(2000).decode(errors="replace")) from None
    except (OSError, ValueError) as error:
        raise NoAnswer(0, str(error)) from None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", choices=["ready", "live"])
    parser.add_argument("--routing", type=Path, action="append", default=[], help="repeatable")
    parser.add_argument("--release", help="in place of the routing's champion")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of Triton's HTTP endpoint")
    parser.add_argument("--timeout", type=float, default=8.0, help="seconds; below the probe's own")
    told = parser.parse_args(arguments)
    releases = [told.release] if told.release else releases_of(told.routing)
    if not releases:
        print("no routing can be read, and no --release was given")
        return 2
    try:
        (ready if told.question == "ready" else live)(told.url, releases, told.timeout)
    except NoAnswer as error:
        print(f"{releases[0]}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

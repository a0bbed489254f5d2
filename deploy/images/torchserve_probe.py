"""Ask TorchServe for a list: the readiness probe of the TorchServe image.

    torchserve_probe.py --model gref_r0007 [--model ...]

``/ping`` says Healthy while a worker still loads its engines, and a request would wait for it. So
each model is asked for a list of one item. It needs Python alone. Exit code 0: all answer; 1: one
does not, and why on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request

#: A request without any feature, which every release answers.
CALL = {"request": {"request_id": "probe", "user": "", "candidates": [{"item": "probe"}]}}


def failure(url: str, model: str, timeout_s: float) -> str | None:
    """Why a model gives no list; None if it does."""
    request = urllib.request.Request(  # noqa: S310 (http on the loopback address)
        f"{url}/predictions/{model}",
        data=json.dumps(CALL).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            items = json.loads(response.read())["items"]
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read(2000).decode(errors='replace')}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"no answer: {error!r}"
    return None if items == ["probe"] else f"the list of one item is {items}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", required=True, help="repeatable")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the inference endpoint")
    parser.add_argument("--timeout", type=float, default=4.0, help="seconds; below the probe's own")
    told = parser.parse_args(arguments)
    for model in told.model:
        if why := failure(told.url, model, told.timeout):
            print(f"{model}: {why}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

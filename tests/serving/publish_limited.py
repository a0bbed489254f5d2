"""Publish in this process under a limit that the test names. Not a test itself.

python publish_limited.py ENGINES RELEASES [--file-bytes N] [--user UID]
"""

from __future__ import annotations

import argparse
import os
import resource
from pathlib import Path

import torch

from training.release.publishing import publish
from training.release.release_names import PublishError


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engines", type=Path)
    parser.add_argument("releases", type=Path)
    parser.add_argument("--file-bytes", type=int, help="no file may grow beyond this")
    parser.add_argument("--user", type=int, help="publish as this user")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.user is not None:
        os.setegid(options.user)
        os.seteuid(options.user)
    if options.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_bytes, options.file_bytes))
    try:
        print("published", publish(options.engines, options.releases).name)
    except PublishError as error:
        print("refused", error)


if __name__ == "__main__":
    main()

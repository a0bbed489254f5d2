"""Runs a training command that is killed (SIGKILL) at a point of its second epoch.

``python train_and_die.py POINT STAGE [options of the command]``; POINT is ``training`` (between
two batches), ``saving`` (half of the state is written) or ``saved`` (just after the first epoch).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from training import checkpoint, loop, post_train, pretrain


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_training() -> None:
    whole = loop._epoch

    def epoch(*arguments: Any) -> Any:
        *others, advance = arguments
        number = arguments[3]
        calls = []

        def step() -> None:
            calls.append(1)
            if number == 2 and len(calls) == 2:
                die()
            advance()

        return whole(*others, step)

    loop._epoch = epoch


def die_in_saving() -> None:
    save, sync = loop.save_atomically, os.fsync

    def half(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        sync(descriptor)
        die()

    def save_half(path: Path, state: dict[str, Any]) -> None:
        if state["epoch"] == 2:
            checkpoint.os.fsync = half
        save(path, state)

    loop.save_atomically = save_half


def die_when_saved() -> None:
    save = loop.save_atomically

    def then_die(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        if state["epoch"] == 1:
            die()

    loop.save_atomically = then_die


if __name__ == "__main__":
    point, stage, *options = sys.argv[1:]
    {"training": die_in_training, "saving": die_in_saving, "saved": die_when_saved}[point]()
    {"pretrain": pretrain.app, "post_train": post_train.app}[stage](options)

"""What the commands of ``streaming/table.py`` share: exit codes, progress, JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pyarrow as pa
import typer
from deltalake.exceptions import DeltaError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.reading import ContractError
from streaming.consumer.durations import duration_ms
from streaming.feedback_table.maintenance import Refusal

BAD_INPUT, REFUSED = 2, 3
_HOUR_MS = 3_600_000

console, errors = Console(), Console(stderr=True)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Exit 2 with the cause on bad input, 3 where what was asked for is refused."""
    try:
        yield
    except Refusal as refusal:
        errors.print(
            f"refused: {refusal}", style="yellow", highlight=False, markup=False, soft_wrap=True
        )
        raise typer.Exit(REFUSED) from refusal
    except (ContractError, DeltaError, pa.ArrowException, OSError) as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error


def whole_hours(text: str) -> int:
    """Hours of a duration; raises ContractError that names --retention."""
    hours, rest = divmod(duration_ms(text, "--retention"), _HOUR_MS)
    if rest:
        raise ContractError(f"--retention {text}; allowed: whole hours or days, as in 12h or 7d")
    return hours


def progress_bar() -> Progress:
    """A bar that counts slates and goes when it is done."""
    # On standard error: standard output may be JSON for another program.
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )


def print_json(value: Any) -> None:
    """A struct as one line of JSON on standard output."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")

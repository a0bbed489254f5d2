"""What every command of training/ shares: exit codes, and settings with overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
import yaml
from rich.console import Console

from contracts.datasets import Dataset, read_dataset
from contracts.features import FeatureSpec
from contracts.reading import ContractError
from training.settings import TrainingSettings, override, read_settings

console, errors = Console(), Console(stderr=True)

BAD_INPUT, REFUSED = 2, 3
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory")


class Refused(RuntimeError):
    """A gate said no. The work up to there is kept; nothing is passed on."""


@contextmanager
def exit_codes() -> Iterator[None]:
    """Exit 2 with the cause on bad input, 3 on a gate's refusal."""
    try:
        yield
    except Refused as refusal:
        _complain(f"refused: {refusal}", "yellow")
        raise typer.Exit(REFUSED) from refusal
    except (ContractError, ValueError, OSError, FloatingPointError) as error:
        _complain(f"error: {error}", "red")
        raise typer.Exit(BAD_INPUT) from error
    except (RuntimeError, MemoryError) as error:
        # torch has a kind of its own for a full GPU, and a plain RuntimeError for a full CPU.
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        cause = str(error).partition("\n")[0]
        _complain(f"error: out of memory: {cause}; take a smaller optim.batch_size or model", "red")
        raise typer.Exit(BAD_INPUT) from error


def print_line(text: str) -> None:
    """A line as it is: not wrapped, and brackets in it are no markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_files(files: Iterable[Path]) -> None:
    """A line for each file that was written."""
    for file in files:
        print_line(str(file))


def _complain(message: str, style: str) -> None:
    # Not wrapped: a path or a command in it can then be searched for, and copied.
    errors.print(message, style=style, highlight=False, markup=False, soft_wrap=True)


def settings_for(
    data: Path, file: Path | None, changes: Sequence[str]
) -> tuple[Dataset, FeatureSpec, TrainingSettings]:
    """The dataset and the settings: those given, else the file named like the data's source."""
    dataset, spec = read_dataset(data)
    default = Path(__file__).parent / "settings" / f"{dataset.source}.yaml"
    settings = read_settings(file or default)
    return dataset, spec, override(settings, assignments(changes))


def assignments(changes: Sequence[str]) -> dict[str, object]:
    """``--set`` options as dotted names and values; raises ValueError for one that is neither."""
    return dict(_assignment(text) for text in changes)


def _assignment(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: write it as name=value, e.g. post_train.beta=0.3")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {text}: the value is not valid YAML") from error

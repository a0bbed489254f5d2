"""Look after the feedback table: ``python streaming/table.py info TABLE``.

The commands are in this file; what they do, in streaming/feedback_table/; what the table is, in
docs/feedback_table.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Optional

import msgspec
import pyarrow as pa
import typer
import yaml

from contracts.reading import ContractError
from streaming.consumer.durations import duration_ms
from streaming.feedback_table.command import (
    REFUSED,
    console,
    errors,
    exit_codes,
    print_json,
    progress_bar,
    whole_hours,
)
from streaming.feedback_table.info import table_info
from streaming.feedback_table.maintenance import Refusal
from streaming.feedback_table.maintenance import compact as compact_files
from streaming.feedback_table.maintenance import vacuum as vacuum_files
from streaming.feedback_table.opening import check_schema, open_table, storage_options_of
from streaming.feedback_table.printing import print_info, print_validation, size
from streaming.feedback_table.rules import Window
from streaming.feedback_table.validation import validate as validate_rows

EPILOG = """Examples:

python streaming/table.py info feedback/

python streaming/table.py validate s3://bucket/feedback --join-window 10m --plot rates.png

python streaming/table.py compact s3://bucket/feedback --storage-option AWS_REGION=eu-west-1

python streaming/table.py vacuum feedback/ --delete

Keys of an object store are taken from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION, AWS_ENDPOINT_URL ...) or from --storage-option. Exit code 0: done; 2: bad input;
3: the table breaks a rule, or what was asked for would lose what others need.
"""

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, epilog=EPILOG
)
Uri = Annotated[str, typer.Argument(metavar="TABLE", help="Folder, or s3://bucket/path.")]
Options = Annotated[
    Optional[list[str]],
    typer.Option("--storage-option", metavar="KEY=VALUE", help="Of the object store; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
AtVersion = Annotated[
    Optional[int], typer.Option("--version", min=0, help="An older version of the table.")
]

INFO = """Examples:

python streaming/table.py info feedback/

python streaming/table.py info s3://bucket/feedback --json

python streaming/table.py info feedback/ --features > features.yaml
"""


@app.command(epilog=INFO)
def info(
    uri: Uri,
    storage_option: Options = None,
    version: AtVersion = None,
    commits: Annotated[int, typer.Option(min=1, help="How many of the last to show.")] = 10,
    features: Annotated[
        bool, typer.Option("--features", help="Print the feature spec of the table (YAML) alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a table holds: rows, days, files, lanes of consumers, releases, commits."""
    with exit_codes():
        options = storage_options_of(storage_option or [])
        table, spec = open_table(uri, options, version)
        if features:
            text = yaml.safe_dump(msgspec.to_builtins(spec), sort_keys=False, allow_unicode=True)
            sys.stdout.write(text)
            return
        found = table_info(table, spec, options, uri=uri, commits=commits)
        if as_json:
            print_json(found)
        else:
            print_info(console, found)


VALIDATE = """Examples:

python streaming/table.py validate feedback/ --join-window 10m

python streaming/table.py validate s3://bucket/feedback --from-day 2026-01-31 --plot rates.png

Exit code 0: fine; 2: bad input; 3: rules are broken (each with the number of rows, up to five
request ids, and what mends it).
"""


@app.command(epilog=VALIDATE)
def validate(
    uri: Uri,
    storage_option: Options = None,
    version: AtVersion = None,
    join_window: Annotated[
        Optional[str],
        typer.Option(help="The consumer's; without it late feedback is not looked for."),
    ] = None,
    clock_skew: Annotated[
        str, typer.Option(help="How long before its exposure feedback may lie.")
    ] = "5m",
    from_day: Annotated[
        Optional[str], typer.Option(metavar="YYYY-MM-DD", help="This day and later ones alone.")
    ] = None,
    plot: Annotated[
        Optional[Path], typer.Option(help="PNG of label rates by position and by day.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every row, and give label rates by day and by position."""
    with exit_codes():
        if from_day is not None and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", from_day):
            raise ContractError(f"--from-day {from_day}; allowed: YYYY-MM-DD")
        window = Window(
            before=duration_ms(clock_skew, "--clock-skew"),
            after=None if join_window is None else duration_ms(join_window, "--join-window"),
        )
        options = storage_options_of(storage_option or [])
        table, spec = open_table(uri, options, version, any_columns=True)
        try:
            check_schema(table, spec, uri)
        except ContractError as error:
            raise Refusal(str(error)) from error
        rows = sum(one or 0 for one in pa.table(table.get_add_actions())["num_records"].to_pylist())
        with progress_bar() as progress:
            task = progress.add_task("slates", total=None if from_day else rows)
            found = validate_rows(
                *(table, spec, window),
                uri=uri,
                from_day=from_day,
                advance=lambda count: progress.advance(task, count),
            )
        if plot is not None:
            from streaming.feedback_table.plots import plot_rates  # matplotlib is slow to load

            plot_rates(found, plot)
        if as_json:
            print_json(found)
        else:
            print_validation(console, found)
        if found.violations:
            raise typer.Exit(REFUSED)


COMPACT = """Examples:

python streaming/table.py compact feedback/

python streaming/table.py compact s3://bucket/feedback --day 2026-01-31 --target-mib 256

Consumers may go on writing, and refreshes reading. Once a day, after midnight UTC, is enough.
"""


@app.command(epilog=COMPACT)
def compact(
    uri: Uri,
    storage_option: Options = None,
    day: Annotated[
        Optional[str], typer.Option(metavar="YYYY-MM-DD", help="This day alone.")
    ] = None,
    target_mib: Annotated[int, typer.Option(min=1, help="Size of a file to aim at.")] = 128,
    as_json: AsJson = False,
) -> None:
    """Write the many small files of each day again as few large ones."""
    with exit_codes():
        table, _ = open_table(uri, storage_options_of(storage_option or []))
        with errors.status("compacting"):
            done = compact_files(table, target_mib << 20, day)
        if as_json:
            print_json(done)
        elif not done.files_removed:
            console.print(f"nothing to compact in version {done.version}")
        else:
            console.print(
                f"{done.files_removed:,} files became {done.files_added:,}: version {done.version}"
            )


VACUUM = """Examples:

python streaming/table.py vacuum feedback/

python streaming/table.py vacuum feedback/ --delete

python streaming/table.py vacuum feedback/ --retention 1d --force --keep-version 120 --delete

Without --delete it only says what it would free. Versions whose files are gone cannot be read any
more, and a refresh cannot tell which rows came after them.
"""


@app.command(epilog=VACUUM)
def vacuum(
    uri: Uri,
    storage_option: Options = None,
    retention: Annotated[
        Optional[str], typer.Option(help="Whole hours or days; by default the table's own.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the files.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Allow less than the table's own retention.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Also files of writers that died before they committed.")
    ] = False,
    keep_version: Annotated[
        Optional[list[int]], typer.Option(min=0, help="Stays readable; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove files that no version younger than the retention needs."""
    with exit_codes():
        hours = None if retention is None else whole_hours(retention)
        options = storage_options_of(storage_option or [])
        table, _ = open_table(uri, options)
        with errors.status("looking for files"):
            done = vacuum_files(
                *(table, options),
                hours=hours,
                delete=delete,
                force=force,
                full=full,
                keep_versions=tuple(keep_version or ()),
            )
        if as_json:
            print_json(done)
            return
        what = f"{done.files:,} files ({size(done.size_bytes)}) older than {done.retention_hours} h"
        end = "" if delete or not done.files else "; --delete removes them"
        console.print(f"{'removed' if delete else 'would free'} {what}{end}", soft_wrap=True)


if __name__ == "__main__":
    app()

"""What ``streaming/table.py`` prints for people."""

from __future__ import annotations

from datetime import datetime, timezone

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streaming.feedback_table.info import TableInfo
from streaming.feedback_table.rates import Rate
from streaming.feedback_table.transactions import Group
from streaming.feedback_table.validation import Validation

#: Days that are printed; --json has them all.
_DAYS = 14


def print_info(console: Console, info: TableInfo) -> None:
    """The table at a glance; the newest days, every lane, the last commits."""
    top = Table(show_header=False, box=None)
    top.add_row("table", escape(info.uri))
    top.add_row("version", str(info.version))
    top.add_row("rows", f"{info.rows:,} in {len(info.days)} days")
    top.add_row("files", f"{info.files:,}, {size(info.size_bytes)}")
    top.add_row("feature spec", info.feature_spec_sha256)
    top.add_row("feedback", f"{', '.join(info.feedback)}; utility {info.utility}")
    for name, value in info.settings.items():
        top.add_row(name, escape(value))
    console.print(top)
    days = Table("day", "rows", "files", "size", title=_newest("Days", len(info.days)))
    for day in info.days[-_DAYS:]:
        days.add_row(escape(day.day), f"{day.rows:,}", f"{day.files:,}", size(day.size_bytes))
    console.print(days)
    for group in info.groups:
        console.print(_lanes(group))
    shown = Table("release", "arm", "rows", title="Shown by")
    for one in info.shown:
        shown.add_row(escape(one.release or "-"), escape(one.arm or "-"), f"{one.rows:,}")
    console.print(shown)
    commits = Table("version", "time", "operation", "rows", title="Last commits")
    for commit in info.commits:
        rows = "" if commit.rows is None else f"{commit.rows:,}"
        commits.add_row(str(commit.version), moment(commit.time), escape(commit.operation), rows)
    console.print(commits)
    for warning in info.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def print_validation(console: Console, validation: Validation) -> None:
    """Label rates of the newest days, then each violation with what mends it."""
    rates = Table("feedback", "day", "shown", "rate", "95 %", "mean", title="Label rates")
    days = sorted({rate.of for rate in validation.by_day})[-_DAYS:]
    for rate in validation.by_day:
        if rate.of in days:
            rates.add_row(*_row(rate))
    console.print(rates)
    for one in validation.violations:
        console.print(f"{one.rule}: {one.rows:,} rows: {one.meaning}", style="red", markup=False)
        console.print(f"  such as {', '.join(one.request_ids)}", markup=False, soft_wrap=True)
        console.print(f"  to mend: {one.mend}", markup=False, soft_wrap=True)
    verdict = f"{len(validation.violations)} rules broken" if validation.violations else "fine"
    console.print(f"{validation.rows:,} rows of version {validation.version}: {verdict}")


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def moment(time_ms: int | None) -> str:
    """A time in UTC, to the second; - for none."""
    if time_ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(time_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(time_ms)  # beyond the calendar: a wrong unit shows itself


def _lanes(group: Group) -> Table:
    """A row for each lane: topics as "where a new owner starts / what has been handled"."""
    table = Table(
        *("lane", "commits", "exposures", "feedback", "watermark", "committed"),
        title=f"Group {escape(group.name)}, watermark {moment(group.watermark)}",
        caption="of each topic: first offset still needed / first offset not read",
    )
    for lane in group.lanes:
        table.add_row(
            str(lane.partition),
            _number(lane.commits),
            f"{_number(lane.exposures_position)} / {_number(lane.exposures_read)}",
            f"{_number(lane.feedback_position)} / {_number(lane.feedback_read)}",
            moment(lane.watermark),
            moment(lane.wall),
        )
    return table


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _newest(title: str, count: int) -> str:
    return title if count <= _DAYS else f"{title} (the newest {_DAYS} of {count})"


def _row(rate: Rate) -> tuple[str, ...]:
    interval = f"{rate.low:.4f} to {rate.high:.4f}"
    return (rate.kind, rate.of, f"{rate.shown:,}", f"{rate.rate:.4f}", interval, f"{rate.mean:.4f}")

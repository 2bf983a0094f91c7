"""Tables: rows of dicts as aligned markdown, as CSV, and on a terminal; means of cells over seeds."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rlx.report.intervals import Interval, mean_interval

Row = Mapping[str, Any]


def number(value: float, digits: int = 4) -> str:
    """A number with `digits` significant digits.

    >>> number(0.123456), number(1234567.0), number(3), number(2.0), number(1e-05)
    ('0.1235', '1.235e+06', '3', '2', '1e-05')
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.{digits}g}"


def interval_text(interval: Interval) -> str:
    """Mean and interval, rounded where the half-width has two significant digits.

    >>> interval_text(Interval(0.61234, 0.59, 0.63468, 8))
    '0.612 ± 0.022'
    >>> interval_text(Interval(0.0, 0.0, 0.278, 10))
    '0.00 [0.00, 0.28]'
    >>> interval_text(Interval(0.5, float("nan"), float("nan"), 1))
    '0.5'
    """
    half = abs(interval.half_width)
    if not math.isfinite(half):
        return number(interval.mean)
    if half == 0:
        return f"{number(interval.mean)} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if decimals > 6 or abs(interval.mean) >= 1e7:
        return f"{interval.mean:.4g} ± {half:.2g}"
    if abs(interval.high + interval.low - 2 * interval.mean) < 0.02 * half:
        return f"{interval.mean:.{decimals}f} ± {half:.{decimals}f}"
    low, high = f"{interval.low:.{decimals}f}", f"{interval.high:.{decimals}f}"
    return f"{interval.mean:.{decimals}f} [{low}, {high}]"


def text(value: Any) -> str:
    """What a cell shows.

    >>> text(None), text(True), text(0.25), text(("sft", "preference"))
    ('', 'true', '0.25', 'sft, preference')
    """
    if value is None:
        return ""
    if isinstance(value, Interval):
        return interval_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return str(value)


def columns_of(rows: Iterable[Row]) -> list[str]:
    """All keys of the rows, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def markdown(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """An aligned markdown table; numbers stand on the right.

    >>> print(markdown([{"method": "dpo", "accuracy": 0.5}, {"method": "rdpo", "accuracy": 0.75}]), end="")
    | method | accuracy |
    | :----- | -------: |
    | dpo    |      0.5 |
    | rdpo   |     0.75 |
    """
    columns = columns_of(rows) if columns is None else list(columns)
    cells = [[text(row.get(column)).replace("|", "\\|") for column in columns] for row in rows]
    right = [all(_is_number(row.get(column)) for row in rows) for column in columns]
    widths = [max(3, len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    rule = ["-" * (w - 1) + ":" if r else ":" + "-" * (w - 1) for w, r in zip(widths, right, strict=True)]
    lines = [columns, rule, *cells]
    aligned = [
        " | ".join(
            item.rjust(width) if is_right else item.ljust(width)
            for item, width, is_right in zip(line, widths, right, strict=True)
        )
        for line in lines
    ]
    return "".join(f"| {line} |\n" for line in aligned)


def csv_text(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """The rows as CSV at full precision; an interval fills the columns ``x, x_low, x_high, x_n``.

    >>> print(csv_text([{"beta": 0.1, "accuracy": Interval(0.5, 0.25, 0.75, 8)}]), end="")
    beta,accuracy,accuracy_low,accuracy_high,accuracy_n
    0.1,0.5,0.25,0.75,8
    """
    columns = columns_of(rows) if columns is None else list(columns)
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for column in columns:
            value = row.get(column)
            if isinstance(value, Interval):
                keys = (column, f"{column}_low", f"{column}_high", f"{column}_n")
                line.update(zip(keys, value, strict=True))
            else:
                line[column] = text(value) if isinstance(value, list | tuple | bool) else value
        flat.append(line)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _expanded(rows, columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def show(rows: Sequence[Row], title: str = "", columns: Sequence[str] | None = None, stream: TextIO | None = None):
    """Prints the table: drawn on a terminal, as markdown elsewhere."""
    output: TextIO = sys.stdout if stream is None else stream
    columns = columns_of(rows) if columns is None else list(columns)
    if not output.isatty():
        output.write((f"{title}\n\n" if title else "") + markdown(rows, columns))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title) or None, title_justify="left")
    for column in columns:
        right = all(_is_number(row.get(column)) for row in rows)
        table.add_column(escape(column), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(escape(text(row.get(column))) for column in columns))
    Console(file=output).print(table)


def summarise(rows: Iterable[Row], by: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One row per cell: its keys `by`, the number of rows ``n``, and a t-interval per metric over its rows.

    Cells keep the order of their first row. A metric that a row lacks, or holds as None, is left out of the mean.

    >>> rows = [{"beta": 0.1, "seed": seed, "accuracy": 0.5 + 0.1 * seed} for seed in range(3)]
    >>> print(markdown(summarise(rows, ["beta"], ["accuracy"])), end="")
    | beta |    accuracy |   n |
    | ---: | ----------: | --: |
    |  0.1 | 0.60 ± 0.25 |   3 |
    """
    cells: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        cells.setdefault(tuple(repr(row.get(key)) for key in by), []).append(row)
    table = []
    for members in cells.values():
        line: dict[str, Any] = {key: members[0].get(key) for key in by}
        for metric in metrics:
            values = [row[metric] for row in members if row.get(metric) is not None]
            line[metric] = mean_interval(values) if values else None
        table.append({**line, "n": len(members)})
    return table


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | Interval) and not isinstance(value, bool))


def _expanded(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """The CSV's header: three more columns behind each one that holds an interval in some row."""
    header = []
    for column in columns:
        header.append(column)
        if any(isinstance(row.get(column), Interval) for row in rows):
            header += [f"{column}_low", f"{column}_high", f"{column}_n"]
    return header

"""The report of one run, from its ``metrics.jsonl`` and ``config.json`` alone, and the comparison of several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlx import bounds
from rlx.config import ABSENT, flatten
from rlx.errors import UserError, close_matches, one_line
from rlx.report import entropy, plots, tables
from rlx.report.intervals import Interval
from rlx.report.rows import RESERVED, read_metrics, write_atomically


def write_report(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Writes ``table.md``, ``table.csv`` and ``plot.png`` of a run directory, and returns the table's rows.

    A run that has drawn responses gets :func:`rlx.report.entropy.write_entropy_report` too.

    Raises:
      UserError: the directory holds no ``metrics.jsonl``, or an empty one.
    """
    workdir = Path(workdir)
    rows = read_run(workdir)
    table = final_rows(rows)
    title = title_of(workdir)
    write_atomically(workdir / "table.md", f"# {title}\n\n" + tables.markdown(fitting(table)))
    write_atomically(workdir / "table.csv", tables.csv_text(table))
    temporary = workdir / ".plot.tmp.png"
    plots.curves(rows, temporary, title=title)
    os.replace(temporary, workdir / "plot.png")
    if entropy.draws(rows):
        entropy.write_entropy_report({title: rows}, workdir)
    return table


def read_run(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a run directory's ``metrics.jsonl``."""
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        parent = path.parent.parent
        names = [folder.name for folder in parent.iterdir() if folder.is_dir()] if parent.is_dir() else []
        hint = "" if path.parent.is_dir() else close_matches(path.parent.name, names)
        raise UserError(f"{path.parent} is not a run directory: it has no metrics.jsonl.{hint}")
    rows = read_metrics(path)
    if not rows:
        raise UserError(f"{path} holds no rows yet.")
    return rows


def final_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last row of each stage and split, with ``x, x_low, x_high`` joined into one interval.

    >>> row = {"stage": "sft", "step": 4, "split": "eval", "acc": 0.5, "acc_low": 0.4, "acc_high": 0.6}
    >>> print(tables.markdown(final_rows([row])), end="")
    | stage | split | step |         acc |
    | :---- | :---- | ---: | ----------: |
    | sft   | eval  |    4 | 0.50 ± 0.10 |
    """
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        last[row["stage"], row["split"]] = row
    return [_joined(row) for row in last.values()]


def compare(workdirs: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """One row per run: the config values in which the runs differ, and the last evaluation's metrics.

    Where a run has no evaluation its last training row stands in.
    """
    configs = [_flat_config(Path(workdir)) for workdir in workdirs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    values = {key: [config.get(key, ABSENT) for config in configs] for key in keys}
    differing = [key for key in keys if any(value != values[key][0] for value in values[key])]
    table = []
    for i, workdir in enumerate(workdirs):
        rows = read_run(workdir)
        evals = [row for row in rows if row["split"] != "train"]
        final = _joined((evals or rows)[-1])
        del final["split"]
        table.append({"run": str(workdir), **{key: values[key][i] for key in differing}, **final})
    return table


def compare_entropy(workdirs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reward against entropy in several runs: pictures, page and table in ``out``; returns the table.

    Runs are called by folder and method, or by the whole path where two would be called the same.

    Raises:
      UserError: a directory is no run directory, or its run has drawn no responses.
    """
    rows = [read_run(workdir) for workdir in workdirs]
    names = [title_of(workdir) for workdir in workdirs]
    if len({*names}) < len(names):
        names = [str(workdir) for workdir in workdirs]
    return entropy.write_entropy_report(dict(zip(names, rows, strict=True)), out)


def _joined(row: dict[str, Any]) -> dict[str, Any]:
    """Metrics and their interval ends as `Interval`; stage, split and step first."""
    joined = {key: row[key] for key in ("stage", "split", "step")}
    for key, value in row.items():
        if key in RESERVED or plots.is_companion(key, row):
            continue
        low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
        if isinstance(value, int | float) and isinstance(low, int | float) and isinstance(high, int | float):
            value = Interval(value, low, high)
        joined[key] = value
    return joined


def fitting(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table that fits a page: metrics as columns, or as rows where there are many."""
    columns = tables.columns_of(table)
    if len(columns) <= 9:
        return list(table)
    names = [f"{row['stage']} {row['split']}" for row in table]
    metrics = [column for column in columns if column not in ("stage", "split")]
    return [{"metric": column, **{n: r.get(column) for n, r in zip(names, table, strict=True)}} for column in metrics]


def _flat_config(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    return flatten(bounds.read_object(path)) if path.exists() else {}


def title_of(workdir: str | os.PathLike[str]) -> str:
    """The name of a run's folder, with its method."""
    workdir = Path(workdir)
    method = _flat_config(workdir).get("method.name")
    name = workdir.resolve().name
    return f"{name} ({one_line(method, 60)})" if method else name

"""The report of a sweep, from its ``results.jsonl`` alone: a mean and a 95 % interval over seeds per cell.

A line of ``results.jsonl`` is ``{"run": id, "overrides": {...}, "metrics": {...}, ...}``. Runs whose overrides
differ in nothing but seeds make up a cell.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.config import flatten
from rlx.errors import UserError, close_matches, one_line
from rlx.report import plots, tables
from rlx.report.rows import read_rows, write_atomically

IN_TABLE, IN_PLOT = 6, 4  # columns that fit a page, panels that fit a figure; the CSV holds every metric


def write_sweep_report(workdir: str | os.PathLike[str], metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Writes ``table.md``, ``table.csv`` and ``plot.png`` of a sweep, and returns the rows that ``table.md`` shows.

    Args:
      workdir: the directory with ``results.jsonl``.
      metrics: the metrics to show, in order; the first ones of the results unless given.

    Raises:
      UserError: there are no results, or a metric is not among theirs.
    """
    workdir = Path(workdir)
    path = workdir / "results.jsonl"
    results = read_rows(path) if path.exists() else []
    if not results:
        raise UserError(f"{path} holds no results yet.")
    for number, result in enumerate(results, start=1):
        for key in ("overrides", "metrics"):
            if not isinstance(result.get(key), dict):
                raise UserError(f"{path}: result {number} has no object {key!r}: collect the results again.")
    known = metric_names(results)
    for number, result in enumerate(results, start=1):
        values = {name: result["metrics"].get(name) for name in known}
        odd = [name for name, value in values.items() if not (value is None or isinstance(value, int | float))]
        if odd:
            shown = one_line(f"{odd[0]!r}: {values[odd[0]]!r}", 100)
            raise UserError(f"{path}: result {number} has a metric that is no number, {shown}.")
    unknown = [name for name in metrics if name not in known]
    if unknown:
        hint = close_matches(unknown[0], known)
        raise UserError(f"the results have no metric '{unknown[0]}'.{hint} They have: {', '.join(known)}.")
    rows = [{**override_columns(result["overrides"]), **result["metrics"]} for result in results]
    by = cell_keys(results)
    cells = tables.summarise(rows, by, known)
    shown = list(metrics) or known[:IN_TABLE]
    columns = [*by, *shown, "n"]
    title = f"{workdir.resolve().name}: {len(results)} runs"
    rest = [name for name in known if name not in shown]
    note = f"\nIn table.csv too: {', '.join(rest)}.\n" if rest else ""
    head = f"# {title}\n\nMean ± 95 % t-interval over the n runs of a cell.\n\n"
    write_atomically(workdir / "table.md", head + tables.markdown(cells, columns) + note)
    write_atomically(workdir / "table.csv", tables.csv_text(cells, [*by, *known, "n"]))
    temporary = workdir / f".plot.{os.getpid()}.png"
    drawn = list(metrics) or telling_metrics(cells, known)
    plots.cells(cells, temporary, by=telling_keys(cells, by), metrics=drawn[:IN_PLOT], title=title)
    os.replace(temporary, workdir / "plot.png")
    return [{column: cell.get(column) for column in columns} for cell in cells]


def metric_names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The numeric metrics of the results in order of appearance, without the ends of a single run's interval."""
    names = dict.fromkeys(
        name
        for result in results
        for name, value in result["metrics"].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    return [name for name in names if not plots.is_companion(name, names)]


def cell_keys(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The overridden keys that tell cells apart: all but the seeds.

    >>> cell_keys([{"overrides": {"method": "dpo", "data.seed": 1, "seed": 0}}])
    ['method.name']
    """
    keys = dict.fromkeys(key for result in results for key in override_columns(result["overrides"]))
    return [key for key in keys if not is_seed(key)]


def telling_keys(cells: Sequence[Mapping[str, Any]], by: Sequence[str]) -> list[str]:
    """The keys that suffice to tell the cells apart: none that is constant or follows from the keys before it.

    >>> cells = [{"name": "dpo", "rate": r} for r in (0.1, 0.2)]
    >>> cells += [{"name": "rdpo", "rate": r, "epsilon": r} for r in (0.1, 0.2)]
    >>> telling_keys(cells, ["name", "rate", "epsilon"])
    ['name', 'rate']
    """
    kept = list(by)
    for key in reversed(by):
        rest = [other for other in kept if other != key]
        if len({tuple(repr(cell.get(other)) for other in rest) for cell in cells}) == len(cells):
            kept = rest
    return kept


def telling_metrics(cells: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The metrics that differ between cells; all of them where none does.

    >>> rows = [{"lr": lr, "loss": lr, "examples": 8} for lr in (0.1, 0.2)]
    >>> cells = tables.summarise(rows, ["lr"], ["loss", "examples"])
    >>> telling_metrics(cells, ["loss", "examples"])
    ['loss']
    """
    return [name for name in names if len({repr(cell.get(name)) for cell in cells}) > 1] or list(names)


def is_seed(key: str) -> bool:
    """Whether a dotted key is a seed: its last word is ``seed``.

    >>> is_seed("data.shuffle_seed"), is_seed("method.beta")
    (True, False)
    """
    return key.split(".")[-1].split("_")[-1] == "seed"


def override_columns(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides of a run as table columns; a method given by name stands under ``method.name``."""
    flat = flatten(overrides)
    return {"method.name" if key == "method" else key: value for key, value in flat.items()}

"""Collects the results of a sweep's runs into one file, and renders them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlx import config as configs
from rlx.lock import Lock
from rlx.report.rows import dump_row, read_json, write_atomically
from rlx.report.sweep_report import write_sweep_report
from rlx.sweep.plan import RESULT, Plan


def collect(plan: Plan, workdir: Path) -> int:
    """Rebuilds ``results.jsonl`` from the ``result.json`` of the runs; returns how many are finished."""
    with Lock(workdir / ".results.lock").acquire("results.jsonl", patience=60.0, even_alive=True):
        lines = []
        for run in plan.runs:
            path = workdir / run.id / RESULT
            if path.exists():
                head = {"run": run.id, "index": run.index, "overrides": run.overrides}
                lines.append(dump_row({**head, "config_hash": configs.config_hash(run.config), **read_json(path)}))
        write_atomically(workdir / "results.jsonl", "".join(f"{line}\n" for line in lines))
    return len(lines)


def report(plan: Plan, workdir: Path, metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Collects, writes the table and the plot, and returns the table's rows; none if no run is finished."""
    return write_sweep_report(workdir, metrics) if collect(plan, workdir) else []

"""``python -m rlx.report RUNDIR [RUNDIR...]``: rebuilds the reports of runs and sweeps, and compares runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rlx.config import command
from rlx.errors import UserError
from rlx.report import tables
from rlx.report.run_report import compare, write_report
from rlx.report.sweep_report import write_sweep_report

USAGE = """Usage: python -m rlx.report RUNDIR [RUNDIR...]

Rebuilds table.md, table.csv and plot.png of each run or sweep directory from its metrics.jsonl or results.jsonl.
Several runs are then compared: the config values in which they differ, beside their last evaluation.
"""


def main(argv: Sequence[str]) -> int:
    """Rebuilds, prints and compares."""
    if not argv or "--help" in argv or "-h" in argv:
        print(USAGE.strip())
        return 0
    options = [argument for argument in argv if argument.startswith("-")]
    if options:
        raise UserError(f"unknown argument {options[0]}. Usage: python -m rlx.report RUNDIR [RUNDIR...]")
    runs = []
    for folder in argv:
        if (Path(folder) / "results.jsonl").exists():
            table = write_sweep_report(folder)
        else:
            table = write_report(folder)
            runs.append(folder)
        tables.show(table, title=str(folder))
        print(f"\nwritten: {Path(folder) / 'table.md'}, table.csv, plot.png\n")
    if len(runs) > 1:
        tables.show(compare(runs), title="comparison")
    return 0


if __name__ == "__main__":
    sys.exit(command(main))

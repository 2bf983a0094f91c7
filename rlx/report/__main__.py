"""``python -m rlx.report [entropy] RUNDIR [RUNDIR...]``: rebuilds the reports of runs and sweeps, and compares runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rlx.config import command
from rlx.errors import UserError
from rlx.report import tables
from rlx.report.entropy import FILES
from rlx.report.run_report import compare, compare_entropy, write_report
from rlx.report.sweep_report import write_sweep_report

USAGE = """Usage: python -m rlx.report RUNDIR [RUNDIR...]
       python -m rlx.report entropy RUNDIR [RUNDIR...] [--out=DIR]

Rebuilds table.md, table.csv and plot.png of each run or sweep directory from its metrics.jsonl or results.jsonl.
Several runs are then compared: the config values in which they differ, beside their last evaluation.

With the word entropy: reward over entropy of runs of the stage rl in one picture, with the fit of R = -a exp(H) + b and
that of a line, and both over the steps. Writes entropy.png, entropy.html (one file, to open as it is) and entropy.md
into DIR; that of a single run goes into its own directory unless DIR is given.
"""
ENTROPY = "entropy"


def main(argv: Sequence[str]) -> int:
    """Rebuilds, prints and compares."""
    if not argv or "--help" in argv or "-h" in argv:
        print(USAGE.strip())
        return 0
    if argv[0] == ENTROPY:
        return _entropy(argv[1:])
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


def _entropy(argv: Sequence[str]) -> int:
    folders, out = [], None
    for argument in argv:
        name, _, value = argument.partition("=")
        if name == "--out" and value:
            out = value
        elif argument.startswith("-"):
            raise UserError(f"unknown argument {argument}. Usage: python -m rlx.report entropy RUNDIR... [--out=DIR]")
        else:
            folders.append(argument)
    if not folders:
        raise UserError("name a run: python -m rlx.report entropy RUNDIR [RUNDIR...] [--out=DIR]")
    if out is None and len(folders) > 1:
        raise UserError("several runs share a picture: say where it goes with --out=DIR.")
    out = folders[0] if out is None else out
    tables.show(compare_entropy(folders, out), title="reward and entropy")
    print(f"\nwritten: {', '.join(str(Path(out) / name) for name in FILES)}")
    return 0


if __name__ == "__main__":
    sys.exit(command(main))

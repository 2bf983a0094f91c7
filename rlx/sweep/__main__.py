"""``python -m rlx.sweep``: runs every configuration of a sweep, each once, through interruptions and failures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlx import config as configs
from rlx.errors import UserError
from rlx.lock import Lock
from rlx.report import tables
from rlx.sweep import plan as plans
from rlx.sweep import results, worker
from rlx.sweep.pool import Pool, last_lines

USAGE = """Usage: python -m rlx.sweep --config=FILE[:ARG] --workdir=DIR [--config.x.y=VALUE]
                           [--sweep=NAME] [--workers=N] [--index=I] [--list] [--extend] [--metrics=A,B]

Runs what get_sweep(NAME) of the config file lists. Every run has a directory in DIR; a run whose result.json is there
is finished and is not run again, an interrupted one goes on from its checkpoint, a failed one is tried again.

  --config.x.y=VALUE  changes the base config of all runs
  --workers=N         processes at a time (1); runs that share compiled programs go to the same one
  --index=I           runs number I alone, in this process (for job arrays)
  --list              prints the runs and what has become of them
  --extend            accepts a changed sweep in DIR: runs what is new, overwrites nothing
  --metrics=A,B       columns of table.md and panels of plot.png
"""


def main(argv: Sequence[str]) -> int:
    """Parses, checks all runs, and does what the options say."""
    options, overrides = configs.parse_options(argv, USAGE)
    arguments = {"spec": options["config"], "sweep": options["sweep"], "overrides": overrides}
    plan = plans.make_plan(options["config"], options["sweep"], overrides)
    workdir = Path(options["workdir"]).resolve()
    if options["list"]:
        tables.show(plans.listing(plan.runs, workdir))
        return 0
    metrics = [name for name in (options["metrics"] or "").split(",") if name]
    if options["index"] is not None:
        return run_one(plan, plans.find_run(plan, options["index"]), workdir, options["extend"], metrics)
    workers = _count(options["workers"])
    with Lock(workdir / ".lock").acquire(f"the sweep in {workdir}", patience=worker.GRACE_S + 5) as lock:
        plans.record(plan, workdir, options["extend"])
        return run_all(plan, workdir, arguments, lock, workers, metrics)


def run_one(plan: plans.Plan, run: plans.Run, workdir: Path, extend: bool, metrics: Sequence[str]) -> int:
    """Runs a single run in this process; returns the exit status."""
    plans.record(plan, workdir, extend)
    if plans.status(run, workdir) == "finished":
        print(f"{run.id} is finished already")
        return 0
    worker.use_cache(workdir)
    problem = worker.execute(run, configs.load_module(plan.spec), workdir / run.id)
    if problem is not None:
        plans.write_error(workdir / run.id, problem)
        print(f"{run.id} failed: {problem}", file=sys.stderr)
        return 1
    results.report(plan, workdir, metrics)
    print(f"{run.id} is finished: {workdir / run.id / plans.RESULT}")
    return 0


def run_all(
    plan: plans.Plan, workdir: Path, arguments: dict[str, Any], lock: Lock, workers: int, metrics: Sequence[str]
) -> int:
    """Runs everything with a pool, reports, and returns the exit status."""
    pool = Pool(plan, workdir, arguments, lock, workers, lambda run, problem: _settled(plan, workdir, run, problem))
    stopped_by = pool.run()
    table = results.report(plan, workdir, metrics)
    if table:
        tables.show(table)
        print(f"\nwritten: {workdir / 'table.md'}, table.csv, plot.png, results.jsonl")
    if pool.failures:
        print(f"{len(pool.failures)} of {len(plan.runs)} runs failed; the same command tries them again.")
    if stopped_by is not None:
        print("interrupted; the same command goes on.", file=sys.stderr)
        return 128 + stopped_by
    return 1 if pool.failures else 0


def _settled(plan: plans.Plan, workdir: Path, run: plans.Run, problem: str | None) -> None:
    results.collect(plan, workdir)
    if problem is not None:
        log = workdir / run.id / "log.txt"
        lines = "".join(f"    {line}\n" for line in last_lines(log))
        print(f"\n{run.id} failed: {problem}\n{lines}  whole log: {log}", file=sys.stderr, flush=True)


def _count(text: str | None) -> int:
    try:
        count = int(text or "1")
    except ValueError:
        count = 0
    if count < 1:
        raise UserError(f"--workers takes an int of at least 1, not {text!r}.")
    return count


if __name__ == "__main__":
    sys.exit(configs.command(main))

r"""Kills a run at random moments, starts it again until it ends, and compares its bits with one that nobody killed.

  python -m experiments.kills --config=configs/rl.py:grpo,smoke --workdir=runs/kills [--kills=20] [--seed=0]
  python -m experiments.kills --config=configs/dpo_hh.py:smoke --workdir=runs/kills_dpo

Everything else (``--config.KEY=VALUE``) goes to ``python -m rlx.train``. A kill is SIGKILL, at a moment drawn uniformly
from the time that the whole run took, start and compilation included; what a killed run had not saved is done again.
When a run ends before its kill, it is compared and the next one starts from nothing, until all kills are spent. What is
compared: the train state of the last checkpoint, metrics.jsonl and the final metrics. Prints a line for each kill and a
JSON line; exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.compare import differing
from rlx.train.workdir import METRICS


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", type=Path, required=True, help="a folder that does not exist")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args, others = parser.parse_known_args(argv)
    if args.workdir.exists():
        parser.error(f"--workdir={args.workdir} exists: name a new folder")
    return args, others


def run(options: Sequence[str], folder: Path, limit: float | None = None) -> bool:
    """Trains into a folder, and kills it after ``limit`` seconds; returns whether it ended by itself.

    Raises:
      UserError: it ended with an error.
    """
    command = [sys.executable, "-m", "rlx.train", *options, f"--workdir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode:
        raise UserError(f"the run in {folder} failed:\n{errors}")
    return True


def place(folder: Path) -> str:
    """How far a run has come, by its last row."""
    path = folder / METRICS
    rows = read_rows(path) if path.exists() else []
    return f"{rows[-1]['stage']} {rows[-1]['step']}" if rows else "before the first row"


def main(argv: Sequence[str] | None = None) -> int:
    args, options = parse(argv)
    draw, whole = random.Random(args.seed), args.workdir / "whole"
    began = time.monotonic()
    run(options, whole)
    seconds = time.monotonic() - began
    print(f"the whole run took {seconds:.0f} s")
    kills, runs, wrong = 0, 0, []
    while kills < args.kills:
        folder, ended = args.workdir / f"killed_{runs}", False
        while not ended:
            ended = run(options, folder, draw.uniform(0, seconds) if kills < args.kills else None)
            kills += not ended
            if not ended:
                print(f"kill {kills}: {place(folder)}", flush=True)
        wrong += [f"{folder.name}: {name}" for name in differing(folder, whole)]
        runs += 1
    line = {"kills": kills, "runs": runs, "whole_s": round(seconds, 1), "differing": wrong, "options": options}
    print(json.dumps(line))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

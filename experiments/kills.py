r"""Kills a run at random moments, starts it again until it ends, and compares its bits with one that nobody killed.

  python -m experiments.kills --config=configs/rl.py:grpo,smoke --workdir=runs/kills [--kills=20] [--seed=0]
  python -m experiments.kills --config=configs/dpo_hh.py:smoke --workdir=runs/kills_dpo
  python -m experiments.kills --config=configs/dpo_hh.py:smoke --workdir=runs/kills_two --processes=2

Everything else (``--config.KEY=VALUE``) goes to ``python -m rlx.train``. A kill is SIGKILL, at a moment drawn uniformly
from the time that the whole run took, start and compilation included; what a killed run had not saved is done again.
When a run ends before its kill, it is compared and the next one starts from nothing, until all kills are spent. What is
compared: the train state of the last checkpoint, metrics.jsonl and the final metrics. Prints a line for each kill and a
JSON line; exits with 1 where anything differs.

With ``--processes=N`` the run has that many, on this machine; one of them, drawn too, is killed, the others must end by
themselves within ``--patience`` seconds, and all are started again. ``mesh.data`` is N unless given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.compare import differing
from rlx.train.workdir import METRICS, RESULT

DEVICES = "--xla_force_host_platform_device_count"


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", type=Path, required=True, help="a folder that does not exist")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--processes", type=int, default=1, help="of the run, on this machine")
    parser.add_argument("--patience", type=float, default=120, help="seconds that the others have to end")
    args, others = parser.parse_known_args(argv)
    if args.workdir.exists():
        parser.error(f"--workdir={args.workdir} exists: name a new folder")
    if args.processes > 1 and not any(option.startswith("--config.mesh.data") for option in others):
        others.append(f"--config.mesh.data={args.processes}")
    if args.processes > 1:
        others.append(f"--start_timeout={args.patience / 2:g}")  # one may be killed before it has come
    return args, others


class Killing(NamedTuple):
    """When, and whom: ``seconds`` after the start, number ``victim``; the others have ``patience`` seconds to end."""

    seconds: float
    victim: int = 0
    patience: float = 120.0


def run(options: Sequence[str], folder: Path, killing: Killing | None = None, count: int = 1) -> bool:
    """Trains into a folder, and kills one process on the way; returns whether the run ended by itself.

    Raises:
      UserError: it ended with an error, or a process did not end after another was killed, or as if nothing had been.
    """
    command = [sys.executable, "-m", "rlx.train", *options, f"--workdir={folder}"]
    with contextlib.ExitStack() as stack:
        told = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(count)]
        started = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=text, env=own)
            for text, own in zip(told, environments(count), strict=True)
        ]
        try:
            _wait(started, killing)
        except subprocess.TimeoutExpired:
            raise UserError(f"a process of the run in {folder} did not end in {killing}.") from None
        finally:
            for process in started:
                process.kill()  # nothing, where it has ended
                process.wait()
        return _ended(folder, [process.returncode for process in started], [_read(text) for text in told], killing)


def _wait(started: Sequence[subprocess.Popen[bytes]], killing: Killing | None) -> None:
    if killing:
        try:
            started[killing.victim].wait(killing.seconds)
        except subprocess.TimeoutExpired:
            started[killing.victim].kill()
    for process in started:
        process.wait(killing and killing.patience)


def _read(text: IO[str]) -> str:
    text.seek(0)
    return text.read()


def _ended(folder: Path, codes: Sequence[int], told: Sequence[str], killing: Killing | None) -> bool:
    """Whether a run has ended by itself; where it was killed, all of its processes have to say so."""
    if killing is None or codes[killing.victim] != -signal.SIGKILL:
        wrong = [text for code, text in zip(codes, told, strict=True) if code]
        if wrong:
            raise UserError(f"the run in {folder} failed:\n{wrong[0]}")
        return True
    others = [i for i in range(len(codes)) if i != killing.victim]
    quiet = [i for i in others if not codes[i] or "error: " not in told[i]]
    if quiet and not (folder / RESULT).exists():
        raise UserError(f"process {quiet[0]} of the run in {folder} ended with {codes} and no error:\n{told}")
    return False


def environments(count: int) -> Iterator[dict[str, str]]:
    """Those of the processes of a run, each with one device of its own where they are several."""
    if count == 1:
        yield dict(os.environ)
        return
    with socket.socket() as server:
        server.bind(("", 0))
        port = server.getsockname()[1]
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(DEVICES)]
    shared = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_COORDINATOR_ADDRESS": f"localhost:{port}"}
    for index in range(count):
        yield shared | {"JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(index)}


def place(folder: Path) -> str:
    """How far a run has come, by its last row."""
    path = folder / METRICS
    rows = read_rows(path) if path.exists() else []
    return f"{rows[-1]['stage']} {rows[-1]['step']}" if rows else "before the first row"


def main(argv: Sequence[str] | None = None) -> int:
    args, options = parse(argv)
    draw, whole = random.Random(args.seed), args.workdir / "whole"
    if args.processes > 1 and DEVICES not in os.environ.get("XLA_FLAGS", ""):  # their states are compared here
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}={args.processes}"
    began = time.monotonic()
    run(options, whole, count=args.processes)
    seconds = time.monotonic() - began
    print(f"the whole run took {seconds:.0f} s")
    kills, runs, wrong = 0, 0, []
    while kills < args.kills:
        folder, ended = args.workdir / f"killed_{runs}", False
        while not ended:
            killing = Killing(draw.uniform(0, seconds), draw.randrange(args.processes), args.patience)
            ended = run(options, folder, killing if kills < args.kills else None, args.processes)
            kills += not ended
            if not ended:
                print(f"kill {kills}: {place(folder)}", flush=True)
        wrong += [f"{folder.name}: {name}" for name in differing(folder, whole)]
        runs += 1
    line = {"kills": kills, "processes": args.processes, "runs": runs, "whole_s": round(seconds, 1)}
    line |= {"differing": wrong, "options": options}
    print(json.dumps(line))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

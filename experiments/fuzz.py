"""Feeds mutated inputs to everything that reads data from strangers: each is accepted, or refused in one line.

  python -m experiments.fuzz [--count=10000] [--seed=0] [--kinds=rows,headers,overrides,tokenizers,templates,results]
                             [--workers=2] [--seconds=10] [--memory=2048] [--out=DIR]
  python -m experiments.fuzz --case=DIR/rows.pairs.0.17

Valid JSONL rows, Hugging Face folders (safetensors, indices, configs, adapters), config overrides, tokenizer files,
chat templates and files of runs are mutated: bits flipped, parts cut out, repeated and spliced, types and numbers of
JSON changed, nested deeply. A case is a pure function of kind, seed and number. It may succeed or raise a UserError
whose message is one readable line; anything else, more than --seconds, or more than --memory MiB beyond the worker's
own, is a finding: it is printed, its input is saved under --out (which --case reads again), and the exit code is 1.
Ends with a table of the kinds. 10000 cases take some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import fuzz_pool, fuzz_targets
from experiments.fuzz_pool import Job, Limits, Worker
from rlx.report import tables

BATCH = 25
SHOWN = 5  # findings of a kind and an outcome that are told at length


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="cases, shared out between the kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(fuzz_targets.KINDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a case")
    parser.add_argument("--memory", type=int, default=2048, help="MiB of a worker beyond its start")
    parser.add_argument("--out", type=Path, default=None, help="a folder for findings (default: a new one)")
    parser.add_argument("--case", type=Path, help="read a saved input again, in this process")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.kinds = args.kinds.split(",")
    unknown = [kind for kind in args.kinds if kind not in fuzz_targets.KINDS]
    if unknown:
        parser.error(f"--kinds={unknown[0]}: the kinds are {', '.join(fuzz_targets.KINDS)}")
    return args


def jobs(kinds: Sequence[str], count: int, seed: int) -> list[Job]:
    """Batches of cases: every kind gets its share of the count, at least one case."""
    total = sum(fuzz_targets.KINDS[kind][0] for kind in kinds)
    found = []
    for kind in kinds:
        size = max(1, round(count * fuzz_targets.KINDS[kind][0] / total))
        found += [Job(kind, seed, start, min(start + BATCH, size)) for start in range(0, size, BATCH)]
    return found


class Tally:
    """What the cases of a kind have come to."""

    def __init__(self, kind: str):
        self.kind, self.outcomes, self.messages = kind, Counter(), set()
        self.slowest, self.peak = 0.0, 0

    def add(self, answer: dict[str, Any]) -> None:
        """Counts an answer of a worker."""
        if "peak" in answer:
            self.peak = max(self.peak, answer["peak"])
            return
        self.outcomes[answer["outcome"]] += 1
        self.slowest = max(self.slowest, answer["seconds"])
        if answer["outcome"] == "refused":
            self.messages.add(re.sub(r"'[^']*'|\"[^\"]*\"|\d+|/\S+", "_", answer["message"])[:80])

    def row(self) -> dict[str, Any]:
        """A line of the table."""
        good = {name: self.outcomes[name] for name in ("accepted", "refused")}
        bad = self.outcomes.total() - sum(good.values())
        shown = {"messages": len(self.messages), "slowest, s": round(self.slowest, 2), "peak, MiB": self.peak >> 20}
        return {"kind": self.kind, "cases": self.outcomes.total(), **good, "findings": bad, **shown}


class Run:
    """Jobs shared out between workers, and what has come of them."""

    def __init__(self, work: Sequence[Job], limits: Limits, out: Path):
        self.limits, self.out, self.total = limits, out, sum(job.stop - job.start for job in work)
        self.tallies = {job.kind: Tally(job.kind) for job in work}
        self.done, self.begin, self.told = 0, time.monotonic(), 0.0
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in work:
            self._jobs.put(job)
        self._lock = threading.Lock()

    def finish(self, workers: int) -> None:
        """Works all jobs off."""
        threads = [threading.Thread(target=self._work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        worker = Worker(self.limits)
        try:
            while True:
                job = self._jobs.get_nowait()
                for answer in worker.run(job):
                    with self._lock:
                        self._take(job, answer)
        except queue.Empty:
            return
        finally:
            worker.close()

    def _take(self, job: Job, answer: dict[str, Any]) -> None:
        tally = self.tallies[job.kind]
        tally.add(answer)
        if "peak" in answer:
            self._progress()
            return
        self.done += 1
        if answer["outcome"] not in ("accepted", "refused"):
            self._finding(job, answer, tally.outcomes[answer["outcome"]] <= SHOWN)

    def _finding(self, job: Job, answer: dict[str, Any], at_length: bool) -> None:
        variant, content = fuzz_targets.case(job.kind, job.seed, answer["number"])
        name = f"{job.kind}.{variant.replace('/', '|')}.{job.seed}.{answer['number']}"
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / name).write_bytes(content)
        told = "\n  " + answer["message"].strip().replace("\n", "\n  ") if at_length else ""
        print(f"finding: {answer['outcome']}, kind {job.kind}, seed {job.seed}: {self.out / name}{told}", flush=True)

    def _progress(self) -> None:
        spent = time.monotonic() - self.begin
        if spent - self.told > 10 and self.done:
            self.told = spent
            left = spent / self.done * (self.total - self.done)
            rate = self.done / spent
            print(f"{self.done} of {self.total}, {rate:.0f} cases/s, {left:.0f} s left", file=sys.stderr, flush=True)


def replay(path: Path) -> int:
    """Reads a saved input again; what goes wrong is raised."""
    kind, variant, *_ = path.name.replace("|", "/").split(".", 1)
    variant = variant.rsplit(".", 2)[0]
    with tempfile.TemporaryDirectory() as folder:
        outcome, message = fuzz_targets.judge(kind, variant, path.read_bytes(), Path(folder))
    print(f"{outcome}: {message}" if message else outcome)
    return int(outcome == "unreadable")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.worker:
        fuzz_pool.work(Limits(*json.loads(args.worker)))
        return 0
    if args.case:
        return replay(args.case)
    out = args.out or Path(tempfile.mkdtemp(prefix="rlx-fuzz-findings-"))
    run = Run(jobs(args.kinds, args.count, args.seed), Limits(args.seconds, args.memory << 20), out)
    run.finish(args.workers)
    rows = [tally.row() for tally in run.tallies.values()]
    print(tables.markdown(rows), end="")
    return int(any(row["findings"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())

"""Compiles the statistics for TPUs and Hopper GPUs without having one, and checks memory, registers and spills.

  python kernels/aot/compile.py [--target v5e|v5p|v6e|h200 ...] [--json FILE]

For each target: log-probability and entropy of a head (N=8192, D=4096, V=151936, bfloat16) and of given logits,
forward and with gradients, as the kernel made for the platform, as XLA in chunks, and naively. Prints a Markdown table
and exits with 1, saying why, if a package is missing, a program does not compile, a TPU kernel needs more than 32 MiB
of temporary memory, XLA's chunks on an H200 need more than 15 % of the naive form's, or a Hopper kernel spills.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import targets

TPU_KERNEL_MIB = 32
CHUNKED_SHARE = 0.15
NAME = ("target", "op", "form", "pass")


def read(output: str) -> list[dict[str, Any]]:
    """The programs that a worker reports, each with what the assembler said of its kernels."""
    rows = []
    for part in re.split(r"^@begin$", output, flags=re.MULTILINE)[1:]:
        printed, _, result = part.partition("\n@end ")
        if result:
            rows.append(json.loads(result.splitlines()[0]) | {"assembled": assembled(printed)})
    return rows


def assembled(printed: str) -> list[dict[str, Any]]:
    """Registers and spilt bytes of each Mosaic kernel, from the words of ptxas."""
    pattern = (
        r"Compiling entry function '([^']+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    )
    found = re.findall(pattern, printed, re.DOTALL)
    return [{"kernel": k, "registers": int(r), "spill_bytes": int(s) + int(t)} for k, s, t, r in found]


def compile_for(target: targets.Target, shape: list[int]) -> list[dict[str, Any]]:
    """All programs of a target, compiled in a process of their own."""
    start = time.monotonic()
    command = [sys.executable, str(targets.FOLDER / "worker.py"), target.name, *map(str, shape)]
    done = subprocess.run(
        command, env=targets.environment(target), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    rows = read(done.stdout)
    print(f"{target.name}: {len(rows)} programs in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-25:])
        error = f"the compiling process ended with {done.returncode} after {len(rows)} programs:\n{last}"
        rows.append(dict.fromkeys(NAME, "?") | {"target": target.name, "error": error})
    return rows


def with_shares(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to each program its temporary memory as a share of the naive form's."""
    naive = {key(row): row.get("temp_mib") for row in rows if row["form"] == "naive"}

    def share(row: dict[str, Any]) -> float | None:
        whole = naive.get(key(row))
        return round(row["temp_mib"] / whole, 4) if whole and "temp_mib" in row else None

    return [row | {"share": share(row)} for row in rows]


def key(row: dict[str, Any]) -> tuple[str, ...]:
    """What a program has in common with its naive form."""
    return row["target"], row["op"], row["pass"]


def faults(rows: list[dict[str, Any]]) -> list[str]:
    """Everything that is not as it must be, a line each."""
    return [f"{', '.join(row[name] for name in NAME)}: {fault}" for row in rows for fault in faults_of(row)]


def faults_of(row: dict[str, Any]) -> list[str]:
    """What is wrong with one program."""
    if "error" in row:
        return [row["error"]]
    found = []
    tpu = targets.TARGETS[row["target"]].platform == "tpu"
    if row["form"] == "kernel" and not row["kernels"]:
        found.append("the program has no kernel in it")
    if row["form"] == "kernel" and tpu and row["temp_mib"] > TPU_KERNEL_MIB:
        found.append(f"{row['temp_mib']} MiB of temporary memory, more than {TPU_KERNEL_MIB}")
    if row["form"] == "xla" and row["op"] == "head" and not tpu and not within(row["share"]):
        found.append(f"temporary memory is {row['share']} of the naive form's, more than {CHUNKED_SHARE}")
    spilt = [f"{k['kernel']} spills {k['spill_bytes']} bytes" for k in row["assembled"] if k["spill_bytes"]]
    return found + spilt


def within(share: float | None) -> bool:
    """Whether a share of the naive form's memory is known and small enough."""
    return share is not None and share <= CHUNKED_SHARE


def table(rows: list[dict[str, Any]]) -> str:
    """The programs as Markdown."""
    lines = ["| target | op | form | pass | temporary MiB | of naive | compile s | registers (spilt bytes) |"]
    lines.append("|---" * 8 + "|")
    for row in rows:
        name = " | ".join(row[part] for part in NAME)
        if "error" in row:
            lines.append(f"| {name} | failed | | | |")
            continue
        share = "" if row["share"] is None else f"{100 * row['share']:.1f} %"
        kernels = ", ".join(f"{k['registers']} ({k['spill_bytes']})" for k in row["assembled"])
        lines.append(f"| {name} | {row['temp_mib']} | {share} | {row['seconds']} | {kernels} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Compiles for the targets named, all of them by default; 1 if anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=targets.TARGETS, help="may be given several times")
    parser.add_argument("--shape", type=lambda text: [int(n) for n in text.split(",")], default=[], metavar="N,D,V")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    wanted = [targets.TARGETS[name] for name in args.target or targets.TARGETS]
    problems = [line for target in wanted if (line := targets.missing(target))]
    rows: list[dict[str, Any]] = []
    if not problems:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # a compiler keeps one core busy
            rows = list(itertools.chain(*pool.map(lambda target: compile_for(target, args.shape), wanted)))
    rows = with_shares(rows)
    if rows:
        print(table(rows))
    if args.json:
        versions = {name: version for target in wanted for name, version in targets.installed(target).items()}
        about = {"python": platform.python_version(), "versions": versions, "programs": rows}
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    problems += faults(rows)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

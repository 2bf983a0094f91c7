"""What the benchmarks share: measuring forms in turn, the table, the JSON, the command line."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch runs in the same process

import jax
import oracle
import shapes
from forms import BOTH, FORWARD, Form, Runner, Summed, Unavailable

PACKAGES = ("jax", "jaxlib", "numpy", "torch", "trl", "liger-kernel", "cut-cross-entropy", "tokamax", "triton")
MIB = 2**20
START = time.monotonic()


def on_cpu() -> bool:
    """Whether JAX runs on a CPU here."""
    return jax.default_backend() == "cpu"


def about() -> dict[str, Any]:
    """Device, versions and load, to stand beside the numbers."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "machine": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "load": [round(load, 2) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def resident(field: str) -> float | None:
    """A line of this process' status in MiB, e.g. its largest resident size; None where the system has none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    except (OSError, StopIteration):
        return None


def growth(call: Callable[[], Any]) -> float | None:
    """MiB by which the resident size grows at most during a call, results included; None if it cannot be told."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the largest size so far
    except OSError:
        return None
    before = resident("VmRSS")
    call()
    after = resident("VmHWM")
    return None if before is None or after is None else after - before


def timed(calls: dict[Any, Callable[[], Any]], repeats: int, warm_ups: int) -> dict[Any, list[tuple[float, float]]]:
    """Wall and processor milliseconds of each call, all of them in turn so that a busy minute hits every one."""
    times: dict[Any, list[tuple[float, float]]] = {key: [] for key in calls}
    for turn in range(warm_ups + repeats):
        tell(f"turn {turn + 1} of {warm_ups + repeats}: {', '.join(map(str, calls))}")
        for key, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if turn >= warm_ups:
                times[key].append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)))
    return times


def summary(times: list[tuple[float, float]]) -> dict[str, float]:
    """Median and minimum."""
    wall, cpu = zip(*times, strict=True)
    return {
        "wall_ms": statistics.median(wall),
        "wall_min_ms": min(wall),
        "cpu_ms": statistics.median(cpu),
        "cpu_min_ms": min(cpu),
    }


def build(forms: Iterable[Form], case: shapes.Case) -> tuple[dict[str, tuple[Runner, dict]], dict[str, str]]:
    """Runners and their errors by name, and for the other forms why they cannot run."""
    runners, reasons, truth = {}, {}, oracle.Oracle(case)
    for form in forms:
        tell(f"{case.shape.text} {case.dtype}: {form.name}")
        try:
            runner = form.build(case)
            runners[form.name] = runner, check(runner, truth)
        except Unavailable as reason:
            reasons[form.name] = str(reason)
        except Exception as error:  # one that fails must not cost the others: out of memory, most likely
            reasons[form.name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return runners, reasons


def tell(line: str) -> None:
    """Progress, with the seconds since the start of the process."""
    print(f"{time.monotonic() - START:6.0f} s  {line}", file=sys.stderr, flush=True)


def work(case: shapes.Case, name: str) -> dict[str, float]:
    """Bytes that given logits must move (read once, or read twice and written once); products of a head, 2 or 6 NDV.

    Of accelerators: what a busy CPU reaches says little.
    """
    n, d, v, _ = case.shape
    if on_cpu():
        return {}
    if len(case.arrays) == 1:
        return {"tb": n * v * case.dtype.itemsize * (1 if name == FORWARD else 3) / 1e12}
    return {"tflop": n * d * v * (2 if name == FORWARD else 6) / 1e12}


def check(runner: Runner, truth: oracle.Oracle) -> dict[str, dict[str, float]]:
    """Errors against float64 by pass."""
    if isinstance(runner, Summed):
        return {FORWARD: {}, BOTH: {}}
    values, gradients = runner.forward(truth.case), runner.both(truth.chosen)
    found = truth.errors(values, gradients, entropy=runner.entropy)
    gradient = {"gradient_error": found.pop("gradient_error")}
    return {FORWARD: found, BOTH: gradient}


def measure(forms: list[Form], cases: list[shapes.Case], repeats: int, warm_ups: int) -> list[dict[str, Any]]:
    """One row for each form and pass; inputs rotate over the cases, all of one shape."""
    case = cases[0]
    runners, reasons = build(forms, case)
    rows = []
    for passed in (FORWARD, BOTH):
        calls = {name: rotating(runner, passed, cases) for name, (runner, _) in runners.items()}
        grown = {name: growth(call) if on_cpu() else None for name, call in calls.items()}
        times = timed(calls, repeats, warm_ups)
        base = statistics.median(wall for wall, _ in times["jax naive"]) if "jax naive" in times else None
        for form in forms:
            row = {"shape": case.shape.text, "dtype": str(case.dtype), "form": form.name, "pass": passed}
            if form.name in reasons:
                rows.append(row | {"reason": reasons[form.name]})
                continue
            found = summary(times[form.name])
            rates = {f"{unit}_per_s": amount / found["wall_ms"] * 1e3 for unit, amount in work(case, passed).items()}
            speed = {"speed": None if base is None else base / found["wall_ms"], "growth_mib": grown[form.name]}
            runner, errors = runners[form.name]
            rows.append(row | found | rates | speed | runner.costs.get(passed, {}) | errors[passed])
    return rows


def rotating(runner: Runner, passed: str, cases: list[shapes.Case]) -> Callable[[], Any]:
    """A call that takes the next inputs each time, so that no cache keeps them."""
    function, turn = (runner.forward if passed == FORWARD else runner.both), iter(range(sys.maxsize))
    return lambda: function(cases[next(turn) % len(cases)])


COLUMNS: dict[str, tuple[str, str]] = {
    "wall_ms": ("wall ms", "{:.4g}"),
    "wall_min_ms": ("min", "{:.4g}"),
    "cpu_ms": ("processor ms", "{:.4g}"),
    "speed": ("speed of naive", "{:.2f}x"),
    "temp_mib": ("temporary MiB", "{:.1f}"),
    "growth_mib": ("resident +MiB", "{:.0f}"),
    "tb_per_s": ("TB/s", "{:.3g}"),
    "tflop_per_s": ("TFLOP/s", "{:.3g}"),
    "compile_s": ("compile s", "{:.1f}"),
    "logp_error": ("logp error", "{:.1e}"),
    "entropy_error": ("entropy error", "{:.1e}"),
    "gradient_error": ("gradient error", "{:.1e}"),
}


def table(rows: list[dict[str, Any]], columns: dict[str, tuple[str, str]] | None = None) -> str:
    """The rows as Markdown: columns that no row fills are left out, forms that could not run say why."""
    columns = {key: how for key, how in (columns or COLUMNS).items() if any(row.get(key) is not None for row in rows)}
    titles = ["shape", "dtype", "form", "pass", *(title for title, _ in columns.values())]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = ["" if row.get(key) is None else how.format(row[key]) for key, (_, how) in columns.items()]
        if "reason" in row:
            cells = [row["reason"], *[""] * (len(columns) - 1)] if columns else []
        lines.append(f"| {' | '.join([row['shape'], row['dtype'], row['form'], row['pass'], *cells])} |")
    return "\n".join(lines)


def arguments(description: str, default: list[tuple[str, str]]) -> argparse.ArgumentParser:
    """The command line of a benchmark; ``default`` are shapes and types on a CPU."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = ", ".join(shapes.SHAPES)
    parser.add_argument("--shape", action="append", type=shapes.parse, metavar="NAME|N,D,V", help=f"names: {listed}")
    parser.add_argument("--dtype", action="append", choices=("float32", "bfloat16"), help="several are allowed")
    parser.add_argument(
        "--implementation", action="append", metavar="NAME", help="of rlx; by default all that run here"
    )
    parser.add_argument("--repeats", type=int, help="by default 3 on a CPU, 20 elsewhere")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.set_defaults(default=default)
    return parser


def wanted(args: argparse.Namespace) -> list[tuple[shapes.Shape, str]]:
    """Shapes and types asked for: on a CPU the bars of the benchmark, elsewhere the real models in bfloat16."""
    if args.shape:
        return [
            (shape, dtype) for shape in args.shape for dtype in args.dtype or ["float32" if on_cpu() else "bfloat16"]
        ]
    if on_cpu():
        return [(shapes.SHAPES[name], dtype) for name, dtype in args.default if dtype in (args.dtype or [dtype])]
    models = [shape for name, shape in shapes.SHAPES.items() if not name.startswith("bar")]
    return [(shape, dtype) for shape in models for dtype in args.dtype or ["bfloat16"]]


def run(args: argparse.Namespace, forms: list[Form], *, given: bool) -> list[dict[str, Any]]:
    """Measures all that was asked for, prints the table, writes the JSON."""
    repeats, warm_ups = args.repeats or (3 if on_cpu() else 20), 1 if on_cpu() else 3
    rows: list[dict[str, Any]] = []
    for shape, dtype in wanted(args):
        sets = 1 if on_cpu() else 2
        cases = [shapes.make(shape, dtype, given=given, seed=seed) for seed in range(sets)]
        rows += measure(forms, cases, repeats, warm_ups)
        del cases
    report(rows, args.json)
    return rows


def report(rows: list[dict[str, Any]], path: Path | None, columns: dict[str, tuple[str, str]] | None = None) -> None:
    """Prints the table under the device and the versions, and writes both as JSON."""
    context = about()
    named = ", ".join(f"{name} {version}" for name, version in context["versions"].items() if version)
    print(f"{context['device']} ({context['machine']}, {context['cores']} cores), {named}, load {context['load'][0]}\n")
    print(table(rows, columns))
    if path:
        path.write_text(json.dumps(context | {"rows": rows}, indent=1) + "\n", encoding="utf-8")

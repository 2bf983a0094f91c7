"""Everything worth measuring on a GPU, in one call of less than ten minutes.

  PYTHONPATH=.:kernels python kernels/benchmarks/gpu_plan.py --json plan.json [--minutes 9] [--toy]

First every body is checked on the device against float64 on ragged shapes, then the ceilings of this device are
measured (copy bandwidth, rate of a bfloat16 product), then come the tables, the most telling sizes first. Sizes for
which no time is left are named. Each table is printed as soon as it is there, and the JSON written again.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import forms
import forms_torch
import jax
import jax.numpy as jnp
import linear_token_statistics
import shapes
from forms import Form
from shapes import Shape

from rlx_kernels import core, frame
from rlx_kernels.problem import Head, Problem

RAGGED = (Shape(1, 64, 257), Shape(5, 128, 1000), Shape(130, 256, 4096), Shape(129, 192, 50257), Shape(300, 896, 5003))
LIMITS = {"float32": (1e-5, 1e-5), "bfloat16": (1e-5, 5e-3)}
"""Errors of values and of gradients above which a body is called wrong."""

ROWS, VOCABULARIES = (8192, 32768, 2048), (151936, 128256, 262144, 50257, 32768)
HEADS = (
    Shape(8192, 4096, 151936),
    Shape(4096, 1024, 151936),
    Shape(8192, 896, 151936),
    Shape(8192, 4096, 128256),
    Shape(4096, 2048, 151936),
    Shape(16384, 2560, 262144),
    Shape(5000, 2048, 50257),
)
CHUNKS = (2048, 8192, 16384, 32768)


def chunk(columns: int, case: shapes.Case) -> forms.Compiled:
    """XLA in chunks of the vocabulary of a given size."""
    options = frame.Options(core.Spec(forms.STATISTICS, softcap=case.shape.softcap), body="columns", size=columns)

    def form(x: jax.Array, w: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = frame.statistics(Problem(Head(x=x, w=w), targets[:, None]), options)
        return out["logp"], out["entropy"]

    return forms.Compiled(form, case)


def of_given() -> list[Form]:
    """Forms of given logits."""
    return [*forms.of_jax(None), *forms_torch.GIVEN]


def of_head(sizes: tuple[int, ...] = CHUNKS) -> list[Form]:
    """Forms of a head, chunks of several sizes among them."""
    chunks = [Form(f"rlx chunks of {columns}", functools.partial(chunk, columns)) for columns in sizes]
    return [
        *forms.of_jax(None),
        Form("rlx fused loss", forms.Fused),
        *chunks,
        *linear_token_statistics.TOKAMAX,
        *forms_torch.HEAD,
    ]


def correctness(sizes: tuple[Shape, ...]) -> Iterator[dict[str, Any]]:
    """Errors of each body on ragged shapes, products of float32 at full precision."""
    bodies = [form for form in forms.of_jax(None) if form.name.startswith("rlx")]
    with jax.default_matmul_precision("highest"):
        for shape, dtype, given in itertools.product(sizes, LIMITS, (True, False)):
            runners, reasons = common.build(bodies, shapes.make(shape, dtype, given=given))
            for form in bodies:
                row = {"shape": shape.text, "dtype": dtype, "form": form.name, "pass": "given" if given else "head"}
                if form.name in reasons:
                    yield row | {"reason": reasons[form.name]}
                    continue
                found = {name: error for errors in runners[form.name][1].values() for name, error in errors.items()}
                values, gradients = LIMITS[dtype]
                right = max(found["logp_error"], found["entropy_error"]) <= values
                yield row | found | {"right": right and found["gradient_error"] <= gradients}


def best_seconds(call: Callable[[], Any], repeats: int = 20) -> float:
    """Median wall seconds of a call, after three that do not count."""
    times = common.timed({0: call}, repeats, 3)[0]
    return statistics.median(wall for wall, _ in times) / 1e3


def ceilings(scale: int) -> dict[str, float]:
    """What this device reaches at most: bytes copied (read and written) and operations of a bfloat16 product."""
    x = jax.random.normal(jax.random.key(0), (scale, scale, 8), jnp.float32)
    a = jax.random.normal(jax.random.key(1), (scale, scale)).astype(jnp.bfloat16)
    copy, product = (jax.jit(function) for function in (lambda x: x + 1, lambda a: a @ a))
    moved = best_seconds(lambda: jax.block_until_ready(copy(x)))
    multiplied = best_seconds(lambda: jax.block_until_ready(product(a)))
    return {"tb_per_s": 2 * x.nbytes / moved / 1e12, "tflop_per_s": 2 * scale**3 / multiplied / 1e12}


def plan(toy: bool) -> list[tuple[Shape, str, bool]]:
    """Shapes, types, and whether logits are given: heads and logits in turn, the most telling first."""
    if toy:
        return [(Shape(64, 16, 300), "bfloat16", given) for given in (True, False)]
    given = [
        (Shape(rows, 1, vocabulary), dtype, True)
        for dtype, rows, vocabulary in itertools.product(("bfloat16", "float32"), ROWS, VOCABULARIES)
        if 1e9 <= rows * vocabulary * jnp.dtype(dtype).itemsize <= 12e9  # less stays in the cache of the device
    ]
    pairs = itertools.zip_longest(given, [(shape, "bfloat16", False) for shape in HEADS])
    return [one for pair in pairs for one in pair if one is not None]


def tables(found: dict[str, Any], toy: bool, deadline: float) -> Iterator[None]:
    """Measures the plan until the deadline into ``found``; hands over after each size."""
    for shape, dtype, given in plan(toy):
        name = f"{'given logits' if given else 'head'} {shape.text} {dtype}"
        if time.monotonic() > deadline:
            found["not_run"].append(name)
            continue
        cases = [shapes.make(shape, dtype, given=given)]
        measured = of_given() if given else of_head(CHUNKS[:1] if toy else CHUNKS)
        rows = common.measure(measured, cases, *((2, 1) if toy else (20, 3)))
        found["tables"][name] = rows
        print(f"\n{name}\n\n{common.table(rows)}", flush=True)
        del cases
        yield


def main(argv: list[str] | None = None) -> int:
    """Checks, measures, prints and writes; 1 if a body is wrong."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9, help="no size is begun in the last of them")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to see that it runs; any device")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    args = parser.parse_args(argv)
    if common.on_cpu() and not args.toy:
        parser.error("JAX sees no accelerator here; --toy runs the plan at tiny sizes")
    found: dict[str, Any] = common.about() | {"tables": {}, "not_run": []}

    def write() -> None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    found["correctness"] = list(correctness(RAGGED[1:2] if args.toy else RAGGED))
    print(common.table(found["correctness"], common.COLUMNS | {"right": ("right", "{}")}), flush=True)
    found["ceilings"] = ceilings(256 if args.toy else 8192)
    print(f"\nceilings: {found['ceilings']}", flush=True)
    write()
    for _ in tables(found, args.toy, start + 60 * (args.minutes - 1)):
        write()
    write()
    print(f"\nnot run, for want of time: {', '.join(found['not_run']) or 'nothing'}")
    return 0 if all(row.get("right", True) for row in found["correctness"]) else 1


if __name__ == "__main__":
    sys.exit(main())

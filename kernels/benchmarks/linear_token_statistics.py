r"""Time and temporary memory of log-probability and entropy of ``x @ w`` with gradients, beside the plain forms.

  PYTHONPATH=kernels python kernels/benchmarks/linear_token_statistics.py [--shape N,D,V ...] [--json FILE]

All forms run in this process, in turn, on the same inputs. Prints a table of processor milliseconds (median and
minimum; on an accelerator wall milliseconds), the bytes of temporaries that XLA reports, and the largest deviation from
the plain form; writes the same as JSON with the device and the versions.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rlx_kernels import reference, xla

NAMES = ("logp", "entropy")
SHAPES = ((1536, 128, 8192), (2048, 256, 32768), (1024, 128, 65536))


def plain(x, w, targets):
    """What most code does."""
    logp = jax.nn.log_softmax(x @ w)
    chosen = jnp.take_along_axis(logp, targets[:, None], 1)[:, 0]
    return {"logp": chosen, "entropy": -(jnp.exp(logp) * logp).sum(-1)}


def oracle(x, w, targets):
    """The naive body that all others are tested against."""
    return reference.linear_statistics(x, w, None, targets, NAMES)


def chunked(x, w, targets, rows=None):
    """The product: row chunks with a gradient of their own."""
    rows = rows or xla.pick_rows(w.shape[1])
    return xla.linear_statistics(x, w, None, targets, xla.Options(NAMES, rows=rows))


FORMS = {
    "plain": plain,
    "reference": oracle,
    "chunked": chunked,
    **{f"chunked {rows}": functools.partial(chunked, rows=rows) for rows in (64, 128, 256, 512)},
    "whole": functools.partial(chunked, rows=1 << 30),
}


def make_step(form, targets):
    """Value and gradients, the loss of ``mean(logp) + 0.01 mean(entropy)``."""

    def loss(x, w):
        out = form(x, w, targets)
        return out["logp"].mean() + 0.01 * out["entropy"].mean()

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def measure(shape: tuple[int, int, int], repeats: int) -> list[dict]:
    """One row for each form, timed in turn."""
    n, d, v = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(n, d)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(d, v)) * 0.02, jnp.float32)
    targets = jnp.asarray(rng.integers(0, v, n), jnp.int32)
    steps = {name: make_step(form, targets).lower(x, w).compile() for name, form in FORMS.items()}
    values = {name: jax.block_until_ready(step(x, w)) for name, step in steps.items()}
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = clock()
            jax.block_until_ready(step(x, w))
            times[name].append(1e3 * (clock() - start))
    return [
        {
            "shape": list(shape),
            "form": name,
            "median_ms": round(float(np.median(times[name])), 1),
            "min_ms": round(min(times[name]), 1),
            "temp_mib": round(step.memory_analysis().temp_size_in_bytes / 2**20, 1),
            "logits_mib": n * v * 4 / 2**20,
            "deviation": deviation(values[name], values["plain"]),
        }
        for name, step in steps.items()
    ]


def deviation(got, want) -> float:
    """Largest difference of value and gradients, relative to the largest entry of each."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = ["| N,D,V | form | median ms | min ms | temporaries MiB | deviation |", "|---|---|---|---|---|---|"]
    for r in rows:
        shape = ",".join(map(str, r["shape"]))
        times = f"{r['median_ms']} | {r['min_ms']} | {r['temp_mib']}"
        lines.append(f"| {shape} | {r['form']} | {times} | {r['deviation']:.1e} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Times every form on every shape, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", type=lambda text: tuple(map(int, text.split(","))))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    rows = [row for shape in args.shape or SHAPES for row in measure(shape, args.repeats)]
    print(table(rows))
    if args.json:
        device = jax.devices()[0].device_kind
        about = {"device": device, "jax": jax.__version__, "load": os.getloadavg()[0], "rows": rows}
        args.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()

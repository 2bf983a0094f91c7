"""Covariance of a batch of tokens and exact selection of the largest: rlx beside plain JAX and PyTorch.

  PYTHONPATH=.:kernels python kernels/benchmarks/selection.py [--tokens 65536 ...] [--json FILE]

What Clip-Cov and KL-Cov do once a batch, on arrays of as many numbers as the batch has tokens: cheap beside the sweep
over the vocabulary, and measured so that it stays so. All forms run in this process, in turn, on the same inputs.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import jax
import jax.numpy as jnp
from forms import Unavailable, needed

from rlx import ops
from rlx.policy import select

RATIO = 2e-4
TOKENS = (16384, 131072, 1048576)
COLUMNS = {
    key: common.COLUMNS[key] for key in ("wall_ms", "wall_min_ms", "cpu_ms", "speed", "temp_mib", "compile_s")
} | {"selected": ("tokens selected", "{}")}


def inputs(tokens: int) -> tuple[jax.Array, ...]:
    """Log-probabilities of now and before, advantages, which tokens are real: nine in ten."""
    keys = jax.random.split(jax.random.key(0), 4)
    logprobs = -jnp.exp(jax.random.normal(keys[0], (tokens,)))
    old = logprobs + 0.1 * jax.random.normal(keys[1], (tokens,))
    advantages = jax.random.normal(keys[2], (tokens,))
    return logprobs, old, advantages, jax.random.uniform(keys[3], (tokens,)) < 0.9


def covariance(logprobs, advantages, where):
    """As verl's recipe has it: masked means, products of the differences."""
    count = where.sum()
    centred = (x - jnp.where(where, x, 0).sum() / count for x in (logprobs, advantages))
    return jnp.where(where, functools.reduce(jnp.multiply, centred), -jnp.inf)


def plain_select(logprobs, old, advantages, where):
    """The largest by a full sort, their number known when the program runs."""
    cov = covariance(logprobs, advantages, where)
    k = jnp.maximum((RATIO * where.sum()).astype(jnp.int32), 1)
    return jnp.zeros(cov.shape, bool).at[jnp.argsort(-cov)].set(jnp.arange(cov.size) < k)


def torch_select(tokens: int) -> Callable:
    """verl's KL-Cov in PyTorch, whose number of tokens is a Python number: it waits for the device to know it."""
    torch = needed("torch")

    def call(logprobs, old, advantages, where):
        ids = where.nonzero()[:, 0]
        a, b = advantages[ids], logprobs[ids]
        largest = torch.topk((a - a.mean()) * (b - b.mean()), max(1, int(RATIO * len(ids)))).indices
        mask = torch.zeros(tokens, dtype=torch.bool, device=where.device)
        mask[ids[largest]] = True
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return mask

    return call


FORMS: dict[str, Callable] = {
    "jax naive": plain_select,
    "rlx kl_cov_select": lambda logp, old, a, w: select.kl_cov_select(logp, a, ratio=RATIO, where=w),
    "rlx clip_cov_keep": lambda logp, old, a, w: (
        ~select.clip_cov_keep(logp, old, a, ratio=RATIO, key=jax.random.key(0), where=w)
    ),
    "rlx batch_covariance": lambda logp, old, a, w: ops.batch_covariance(logp, a, where=w),
}


def measure(tokens: int, repeats: int, warm_ups: int) -> list[dict[str, Any]]:
    """One row for each form."""
    arrays, costs, calls = jax.block_until_ready(inputs(tokens)), {}, {}
    for name, function in FORMS.items():
        start = time.perf_counter()
        step = jax.jit(function).lower(*arrays).compile()
        temp = step.memory_analysis().temp_size_in_bytes / common.MIB
        costs[name] = {"compile_s": time.perf_counter() - start, "temp_mib": temp}
        calls[name] = functools.partial(lambda step: jax.block_until_ready(step(*arrays)), step)
    try:
        select_in_torch, torch = torch_select(tokens), needed("torch")
        tensors = [torch.from_dlpack(x) for x in arrays]
        calls["torch (verl's KL-Cov)"] = lambda: select_in_torch(*tensors)
    except Unavailable as reason:
        costs["torch (verl's KL-Cov)"] = {"reason": str(reason)}
    times = common.timed(calls, repeats, warm_ups)
    rows = []
    for name in (*FORMS, "torch (verl's KL-Cov)"):
        row = {"shape": str(tokens), "dtype": "float32", "form": name, "pass": "forward"} | costs.get(name, {})
        if name in calls:
            found = common.summary(times[name])
            mask = calls[name]()
            selected = None if isinstance(mask, tuple) else int(mask.sum())
            naive = common.summary(times["jax naive"])["wall_ms"]
            row |= found | {"speed": naive / found["wall_ms"], "selected": selected}
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures every size, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", action="append", type=int, help="of a batch; several are allowed")
    parser.add_argument("--repeats", type=int, help="by default 5 on a CPU, 20 elsewhere")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    repeats = args.repeats or (5 if common.on_cpu() else 20)
    rows = [row for tokens in args.tokens or TOKENS for row in measure(tokens, repeats, warm_ups=3)]
    common.report(rows, args.json, COLUMNS)
    return rows


if __name__ == "__main__":
    main()

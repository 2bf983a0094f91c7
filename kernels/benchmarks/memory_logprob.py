"""Peak memory of log-probability and entropy of a head with gradients, in a process of its own.

  PYTHONPATH=.:kernels python kernels/benchmarks/memory_logprob.py rlx|rlx_tied|jax_plain

Work: hidden [1024, 128] times weights of 65536 tokens, loss mean(logp) + 0.01 mean(entropy), gradients for both, in
float32. ``rlx`` has the weights as a head of its own, [D, V]; the others as an embedding, [V, D]. Prints one JSON line:
``peak_over_inputs_mib`` is the largest resident size above the size just before the first call, so with the compiler
and the gradients; ``running_over_inputs_mib`` that of the second call, with the gradients; ``copies`` and
``running_copies`` are their ratios to ``logits_mib``, one copy of the logits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import common
import jax
import jax.numpy as jnp
import numpy as np
import plain

from rlx import ops

N, D, V = 1024, 128, 65536
FORMS: dict[str, Callable] = {
    "rlx": lambda h, w, t: ops.linear_token_statistics(h, w, t)[:2],
    "rlx_tied": lambda h, w, t: ops.linear_token_statistics(h, w.T, t, tied=True)[:2],
    "jax_plain": lambda h, w, t: plain.head(h, w.T, t),
}


def current_mib() -> float:
    """Resident size of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def prepare(method: str, shape: tuple[int, int, int]) -> Callable[[], float]:
    """A call that computes value and gradients and waits for them."""
    n, d, v = shape
    rng = np.random.default_rng(0)
    h = jnp.asarray(rng.normal(size=(n, d)), jnp.float32)
    w = rng.normal(size=(v, d)).astype(np.float32) * np.float32(0.02)
    w = jnp.asarray(np.ascontiguousarray(w.T) if method == "rlx" else w)
    t = jnp.asarray(rng.integers(0, v, n), jnp.int32)

    def loss(h, w):
        logp, entropy = FORMS[method](h, w, t)
        return logp.mean() + 0.01 * entropy.mean()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return lambda: float(jax.block_until_ready(step(h, w))[0])


def measure(method: str, shape: tuple[int, int, int]) -> dict[str, object]:
    """The first call's peak and time, the second call's processor time."""
    call, logits = prepare(method, shape), shape[0] * shape[2] * 4 / 2**20
    base, start = current_mib(), time.perf_counter()
    value, first = call(), time.perf_counter() - start
    scale = 2**20 if sys.platform == "darwin" else 1024
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    peak = max(highest, base)  # the system's two counters are some pages apart, which shows where nothing has grown
    cpu = time.process_time()
    running = common.growth(call)
    cpu = time.process_time() - cpu
    return {
        "peer": method,
        "task": "logprob_entropy_grad",
        "tokens_per_s": round(shape[0] / cpu, 1),
        "peak_rss_mib": round(peak, 1),
        "peak_over_inputs_mib": round(peak - base, 1),
        "logits_mib": logits,
        "copies": round((peak - base) / logits, 2),
        "running_over_inputs_mib": None if running is None else round(running, 1),
        "running_copies": None if running is None else round(running / logits, 2),
        "first_call_s": round(first, 2),
        "cpu_s_per_call": round(cpu, 2),
        "value": value,
    }


def main(argv: list[str] | None = None) -> None:
    """Prints the line of one method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=FORMS)
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(N, D, V))
    args = parser.parse_args(argv)
    print(json.dumps(measure(args.method, args.shape)), flush=True)


if __name__ == "__main__":
    main()

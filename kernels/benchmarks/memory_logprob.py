"""Peak memory of log-probability and entropy of a head with gradients, in a process of its own.

  PYTHONPATH=.:kernels python kernels/benchmarks/memory_logprob.py rlx|jax_plain

Work: hidden [1024, 128] times W [65536, 128] transposed, loss mean(logp) + 0.01 mean(entropy), gradients for both, in
float32. Prints one JSON line: ``peak_over_inputs_mib`` is the largest resident size above the size just before the
first call, compilation and results included; ``logits_mib`` is one copy of the logits, ``copies`` their ratio.
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

import jax
import jax.numpy as jnp
import numpy as np
import plain

from rlx import ops

N, D, V = 1024, 128, 65536
FORMS: dict[str, Callable] = {
    "rlx": lambda h, w, t: ops.linear_token_statistics(h, w.T, t)[:2],
    "jax_plain": lambda h, w, t: plain.head(h, w.T, t),
}


def current_mib() -> float:
    """Resident size of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def prepare(form: Callable, shape: tuple[int, int, int]) -> Callable[[], float]:
    """A call that computes value and gradients and waits for them."""
    n, d, v = shape
    rng = np.random.default_rng(0)
    h = jnp.asarray(rng.normal(size=(n, d)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(v, d)) * 0.02, jnp.float32)
    t = jnp.asarray(rng.integers(0, v, n), jnp.int32)

    def loss(h, w):
        logp, entropy = form(h, w, t)
        return logp.mean() + 0.01 * entropy.mean()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return lambda: float(jax.block_until_ready(step(h, w))[0])


def measure(method: str, shape: tuple[int, int, int]) -> dict[str, object]:
    """The first call's peak and time, the second call's processor time."""
    call, logits = prepare(FORMS[method], shape), shape[0] * shape[2] * 4 / 2**20
    base, start = current_mib(), time.perf_counter()
    value, first = call(), time.perf_counter() - start
    cpu = time.process_time()
    call()
    cpu = time.process_time() - cpu
    scale = 2**20 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    return {
        "peer": method,
        "task": "logprob_entropy_grad",
        "tokens_per_s": round(shape[0] / cpu, 1),
        "peak_rss_mib": round(peak, 1),
        "peak_over_inputs_mib": round(peak - base, 1),
        "logits_mib": logits,
        "copies": round((peak - base) / logits, 2),
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

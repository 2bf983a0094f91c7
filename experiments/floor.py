"""How far a benchmark's step is from what its matrix products alone would take on this machine."""

from __future__ import annotations

import time

from experiments import workload as c

SIZE, REPEATS = 1024, 20


def forward_gflop(sequences: int, length: int, scored: int, keys: float | None = None) -> float:
    """Matrix products of one forward pass of the workload's model, in 1e9 floating-point operations.

    Args:
        sequences: rows.
        length: tokens of a row that go through the layers.
        scored: of them, tokens that go through the head.
        keys: tokens that a token attends to, on average, as computed; None: all of its row.

    >>> round(forward_gflop(2 * c.PAIR_BATCH, c.PROMPT_LEN + c.RESPONSE_LEN, c.RESPONSE_LEN), 1)  # a DPO batch
    8.1
    """
    queries, shared = c.HEADS * c.HEAD_DIM, c.KV_HEADS * c.HEAD_DIM
    weights = c.HIDDEN * (2 * queries + 2 * shared + 3 * c.FFN)
    attention = 2 * queries * (length if keys is None else keys)
    of_layers = c.LAYERS * length * (weights + attention)
    return 2e-9 * sequences * (of_layers + scored * c.HIDDEN * c.VOCAB)


def dpo_gflop(cached: bool) -> float:
    """A DPO step: the policy forward and twice as much backward, and the reference unless it is cached."""
    forward = forward_gflop(2 * c.PAIR_BATCH, c.PROMPT_LEN + c.RESPONSE_LEN, c.RESPONSE_LEN)
    return (3 if cached else 4) * forward


def grpo_gflop() -> float:
    """A GRPO step: prompts once, a token at a time with the cache, the reference, and policy forward and backward."""
    rows, answer = c.RL_PROMPTS * c.RL_GROUP, c.RL_COMPLETION_LEN
    prompts = forward_gflop(c.RL_PROMPTS, c.RL_PROMPT_LEN, 1)
    decoding = forward_gflop(rows, answer, answer, keys=c.RL_PROMPT_LEN + answer)
    return prompts + decoding + 4 * forward_gflop(rows, c.RL_PROMPT_LEN + answer, answer)


def rate() -> float:
    """1e9 operations in a processor second that a float32 product of two square matrices reaches here, at its best."""
    import jax
    import jax.numpy as jnp

    multiply = jax.jit(jnp.dot)
    x = jax.block_until_ready(multiply(*2 * [jnp.full((SIZE, SIZE), 1e-3)]))
    best = float("inf")
    for _ in range(REPEATS):
        before = time.process_time()
        jax.block_until_ready(multiply(x, x))
        best = min(best, time.process_time() - before)
    return 2e-9 * SIZE**3 / best


def distance(gflop: float, cpu_s: float) -> dict[str, float]:
    """For the report line: the floor of a step that took ``cpu_s``, and which share of these seconds it is."""
    reached = rate()
    floor = gflop / reached
    numbers = {"gflop": gflop, "gflop_per_cpu_s": reached, "floor_cpu_s": floor, "floor_share": floor / cpu_s}
    return {name: round(value, 3) for name, value in numbers.items()}

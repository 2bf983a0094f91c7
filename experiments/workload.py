"""The workload of the side-by-side benchmarks: sizes, data, the clock and the report line; only numpy is imported.

Every peer (Tunix, TRL, rlx) does this work: a Qwen2-style decoder with tied embedding, pairs and prompts of full
length, so that each sees the same number of tokens.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import time

import numpy as np

VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, FFN = 8192, 128, 4, 4, 4, 512
HEAD_DIM = HIDDEN // HEADS
PAD, BOS, EOS = 0, 1, 2

# preference pairs
N_PAIRS, PAIR_BATCH, PROMPT_LEN, RESPONSE_LEN = 64, 8, 32, 96
PREF_STEPS, PREF_WARMUP = 12, 2
# online RL
RL_PROMPTS, RL_GROUP, RL_PROMPT_LEN, RL_COMPLETION_LEN = 4, 4, 16, 64
RL_STEPS, RL_WARMUP = 6, 2
LR, BETA = 1e-3, 0.1

MODEL = {
    "name": "transformer", "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_layers": LAYERS, "num_heads": HEADS,
    "num_kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "intermediate_size": FFN, "tie_embeddings": True,
    "qkv_bias": True,
}  # fmt: skip


def preference_pairs(n: int = N_PAIRS, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prompts ``[n, 32]``, chosen and rejected responses ``[n, 96]``: chosen ids are low, rejected ids high."""
    rng = np.random.default_rng(seed)
    half = VOCAB // 2
    prompt = rng.integers(3, VOCAB, (n, PROMPT_LEN)).astype(np.int32)
    chosen = rng.integers(3, half, (n, RESPONSE_LEN)).astype(np.int32)
    rejected = rng.integers(half, VOCAB, (n, RESPONSE_LEN)).astype(np.int32)
    return prompt, chosen, rejected


def rl_prompts(n: int = RL_PROMPTS * (RL_STEPS + RL_WARMUP + 2), seed: int = 0) -> np.ndarray:
    """Random prompts ``[n, 16]``."""
    rng = np.random.default_rng(seed)
    return rng.integers(3, VOCAB, (n, RL_PROMPT_LEN)).astype(np.int32)


def toy_reward(token_ids) -> float:
    """Share of completion tokens whose id is even.

    >>> toy_reward([2, 3, 4, 6])
    0.75
    """
    ids = np.asarray(token_ids)
    return float((ids % 2 == 0).mean()) if ids.size else 0.0


def preference_batches(steps: int = PREF_STEPS + PREF_WARMUP):
    """Batches of ``PAIR_BATCH`` pairs in the layout of ``rlx.data``, in the order the peers see them."""
    prompt, chosen, rejected = preference_pairs()
    for k in range(steps):
        i = (np.arange(PAIR_BATCH) + k * PAIR_BATCH) % N_PAIRS
        rows = [np.concatenate([prompt[i], response[i]], 1) for response in (chosen, rejected)]
        tokens = np.stack(rows, axis=1)
        where = np.broadcast_to(np.arange(tokens.shape[-1]) >= PROMPT_LEN, tokens.shape)
        yield {
            "tokens": tokens,
            "valid": np.ones(tokens.shape, bool),
            "where": where.copy(),
            "candidate_where": np.ones(tokens.shape[:2], bool),
            "index": i.astype(np.int32),
        }


def peak_rss_mib() -> float:
    """Peak resident size of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 2**20), 1)


def trim_memory() -> None:
    """Gives freed memory back to the system and keeps later buffers in the heap (glibc); call it after compiling.

    The compiler leaves some 100 MiB behind, and fresh pages for the buffers of every step cost system time.
    """
    libc = ctypes.CDLL("libc.so.6")
    libc.malloc_trim(0)
    m_trim_threshold, m_mmap_max = -1, -4
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


class Clock:
    """Marks the end of each optimiser step; the rates leave out the first ``warmup`` marks."""

    def __init__(self, warmup: int):
        self.warmup, self.start, self.marks, self.cpu = warmup, time.perf_counter(), [], []

    def mark(self) -> None:
        self.marks.append(time.perf_counter())
        self.cpu.append(time.process_time())

    @property
    def first_step_s(self) -> float:
        return self.marks[0] - self.start

    def steps_per_s(self) -> float:
        used = self.marks[self.warmup - 1 :]
        return (len(used) - 1) / (used[-1] - used[0])

    def cpu_s_per_step(self) -> float:
        """Processor seconds per step: far less sensitive to a busy machine than wall clock."""
        used = self.cpu[self.warmup - 1 :]
        return (used[-1] - used[0]) / (len(used) - 1)

    def median_cpu_s(self) -> float:
        """Median of the steps after the warm-up: one disturbed step does not move it."""
        return float(np.median(np.diff(self.cpu[self.warmup - 1 :])))


def report(peer: str, task: str, clock: Clock, tokens_per_step: int, **extra) -> None:
    """Prints the JSON line that every peer prints."""
    rate = clock.steps_per_s()
    line = {
        "peer": peer,
        "task": task,
        "tokens_per_s": round(rate * tokens_per_step, 1),
        "peak_rss_mib": peak_rss_mib(),
        "steps_per_s": round(rate, 4),
        "cpu_s_per_step": round(clock.cpu_s_per_step(), 3),
        "load_avg": round(os.getloadavg()[0], 1),
        "tokens_per_step": tokens_per_step,
        "first_step_s": round(clock.first_step_s, 2),
        "steps_timed": len(clock.marks) - clock.warmup,
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        **extra,
    }
    print(json.dumps(line), flush=True)

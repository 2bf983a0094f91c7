"""The clock: a layer's forward pass for a whole population, with noise in factors and with noise in full."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import claims, parts
from experiments.eggroll_rank_update import FULL, named
from experiments.parts import Row
from rlx.policy import evolution
from rlx.types import Array

ABSTRACT = "arXiv:2511.16652, abstract: faster than full-rank noise (its figure is for GPUs; the factor 3: ours)"


def get_config(size: str) -> ConfigDict:
    """Sizes of the specification."""
    config = ConfigDict(
        {
            "seeds": tuple(range(20 if size == "full" else 5)),
            "ranks": (1, 4, FULL),
            "width": 512,
            "members": 256,
            "calls": 20,
        }
    )
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "ranks": (1, FULL), "width": 16, "members": 8, "calls": 2})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every rank; a seed is a timing."""
    return [{"table": "time", "rank": rank, "seed": seed} for rank in config.ranks for seed in config.seeds]


@functools.partial(jax.jit, static_argnames=("members", "rank"))
def draw(key: Array, w: Array, *, members: int, rank: int) -> Array | evolution.LowRank:
    """Noise of a population."""
    return evolution.eggroll_noise(key, w, members=jnp.arange(members), rank=rank or None)


forward = jax.jit(functools.partial(evolution.perturbed_linear, sigma=0.1))


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """Milliseconds of a forward pass and of a draw of noise, each the median over calls, after one to compile."""
    found, options = [], {"members": config.members, "rank": cells[0]["rank"]}
    for cell in cells:
        key = jax.random.key(cell["seed"])
        w = jax.random.normal(key, (config.width, config.width)) * config.width**-0.5
        x = jax.random.normal(key, (config.members, config.width))
        noise = draw(key, w, **options)
        forward_ms = milliseconds(lambda w=w, x=x, noise=noise: forward(x, w, noise), config.calls)
        draw_ms = milliseconds(lambda key=key, w=w: draw(key, w, **options), max(config.calls // 10, 1))
        found.append({"forward_ms": forward_ms, "draw_ms": draw_ms})
    return found


def milliseconds(call: Callable[[], Any], calls: int) -> float:
    """Median duration of a call, the first one left out."""
    jax.block_until_ready(call())
    took = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(call())
        took.append(1000 * (time.perf_counter() - start))
    return float(np.median(took))


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """Factors are at least three times as fast."""
    pair = {"table": "time", "rank": FULL}, {"table": "time", "rank": 1}
    text = (
        f"forward pass of {config.members} members at width {config.width}: full rank takes 3 times as long as rank 1"
    )
    return [(claims.ratio_within(text, rows, "forward_ms", *pair, 3.0, np.inf), ABSTRACT)]


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """Bars of the forward pass."""
    shown = [{**row, "noise": named(row["rank"])} for row in rows]
    return [("forward pass of a population (ms)", shown, ("noise",), "forward_ms")]


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {"time": parts.Table("Milliseconds of one layer for a population", ("rank",), ("forward_ms", "draw_ms"))},
    note="One layer of width 512 for 256 members with an input each, on this machine's CPU; median of 20 calls. "
    "*draw_ms*: drawing the noise. Rank 0 is noise without factors. Timings are as good as the machine is idle.",
)

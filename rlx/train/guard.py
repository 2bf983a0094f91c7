"""Steps whose loss or gradient is not finite, or too large: what the compiled step makes of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx import metrics

SKIPPED, EXPLODED = "skipped", "exploded"
"""Metrics: the share of the updates that were left out, or that a bound on the gradient marks."""


class Guard(NamedTuple):
    """What makes an update a bad one.

    Attributes:
      limit: on the norm of the gradient, before it is clipped.
      skip: leave bad updates out; False: count them alone.
    """

    limit: float = math.inf
    skip: bool = True


def guard_of(on_nan: str, explode: float | None) -> Guard | None:
    """The guard of a config; None where the host, which sees what is not finite in the metrics, is enough.

    >>> guard_of("stop", None), guard_of("skip", 100.0)
    (None, Guard(limit=100.0, skip=True))
    """
    if on_nan != "skip" and explode is None:
        return None
    return Guard(math.inf if explode is None else explode, on_nan == "skip")


def decide(guard: Guard, before: Any, after: Any, reported: metrics.Metrics) -> tuple[Any, metrics.Metrics]:
    """``after``, or ``before`` where the update is bad and to be skipped; and the metrics, then of no data.

    One scalar decides, of sums over all rows and devices, so that all of them decide alike and the host need not know.

    Args:
      guard: what is bad.
      before: any arrays.
      after: the same after the update.
      reported: metrics of the update, ``loss`` and ``grad_norm`` among them.
    """
    loss: Any = reported["loss"]
    norm: Any = reported["grad_norm"]
    good = jnp.isfinite(loss.sum) & jnp.isfinite(norm.sum) & (norm.sum <= guard.limit * norm.count)
    share = metrics.mean_of(~good)
    if not guard.skip:
        return after, reported | {EXPLODED: share}
    kept, told = jax.tree.map(
        lambda new, old: jnp.where(good, new, old), (after, reported), (before, metrics.nothing(reported))
    )
    return kept, told | {SKIPPED: share}

"""What a run reports: the same names for every method, recomputed from the same arrays, mergeable over any split.

A metric is a :class:`Mean`, a (sum, count) pair: merge micro-batches, shards and batches by adding, divide at the end.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.types import Array, Batch


class Mean(NamedTuple):
    """A mean in two parts that add up."""

    sum: Array
    count: Array

    @property
    def value(self) -> Array:
        """The mean; 0 of nothing."""
        return numerics.safe_divide(self.sum, self.count)


Metrics = dict[str, Mean]


def mean_of(x: Array, where: Array | None = None) -> Mean:
    """The mean of the selected entries of an array, without gradient.

    >>> print(mean_of(jnp.array([1.0, 3.0, 100.0]), jnp.array([True, True, False])).value)
    2.0
    """
    x = jax.lax.stop_gradient(numerics.accumulate(x))
    return Mean(numerics.sum(x, where=where), numerics.count(where, x))


def merge(a: Mapping[str, Mean], b: Mapping[str, Mean]) -> Metrics:
    """Adds two sets of metrics by name; a name that only one has is kept.

    >>> print(merge({"x": Mean(1.0, 1)}, {"x": Mean(3.0, 1)})["x"].value)
    2.0
    """
    both = {name: Mean(a[name].sum + b[name].sum, a[name].count + b[name].count) for name in a if name in b}
    return dict(a) | dict(b) | both


def psum(metrics: Mapping[str, Mean], axis_name: numerics.AxisName = None) -> Metrics:
    """Global metrics from those of every shard."""
    return {name: Mean(*(numerics.psum(part, axis_name) for part in mean)) for name, mean in metrics.items()}


def values(metrics: Mapping[str, Mean]) -> dict[str, float]:
    """The means as Python numbers, by name."""
    return {name: float(mean.value) for name, mean in metrics.items()}


def preference(batch: Batch, *, beta: float = 1.0) -> Metrics:
    r"""Metrics of candidates, chosen first: accuracy, margin and rewards :math:`\beta\log(\pi/\pi_{ref})`.

    Args:
      batch: ``policy_logps [..., K]``, and when there are any ``reference_logps``, ``where [..., K]`` and ``labels``.
      beta: scale of the implicit reward; methods without a reference report :math:`\beta\log\pi`.

    Returns:
      ``reward_accuracy`` (ties count as wrong), ``reward_margin``, ``chosen_reward``, ``rejected_reward``,
      ``chosen_logps``, ``rejected_logps``. Unpaired candidates (K = 1) are chosen where their label says so, and report
      no margin.
    """
    logps = numerics.accumulate(batch["policy_logps"])
    reward = beta * (logps - numerics.accumulate(batch.get("reference_logps", jnp.zeros_like(logps))))
    where = jnp.broadcast_to(batch.get("where", jnp.ones((), bool)), logps.shape)
    if logps.shape[-1] == 1:
        desirable = batch.get("labels", jnp.ones_like(logps)) > 0.5
        return {
            "chosen_reward": mean_of(reward, where & desirable),
            "rejected_reward": mean_of(reward, where & ~desirable),
            "chosen_logps": mean_of(logps, where & desirable),
            "rejected_logps": mean_of(logps, where & ~desirable),
        }
    first, rest = slice(0, 1), slice(1, None)
    both = where[..., first] & where[..., rest]
    margin = reward[..., first] - reward[..., rest]
    return {
        "reward_accuracy": mean_of(margin > 0, both),
        "reward_margin": mean_of(margin, both),
        "chosen_reward": mean_of(reward[..., first], where[..., first]),
        "rejected_reward": mean_of(reward[..., rest], where[..., rest]),
        "chosen_logps": mean_of(logps[..., first], where[..., first]),
        "rejected_logps": mean_of(logps[..., rest], where[..., rest]),
    }


def scored(rewards: Array, where: Array | None = None) -> Metrics:
    """Metrics of an explicit reward model over candidates ``[..., K]``, chosen first."""
    reported = preference({"policy_logps": rewards} | ({} if where is None else {"where": where}))
    return {name: mean for name, mean in reported.items() if "logps" not in name}


def tokens(batch: Batch) -> Metrics:
    """Metrics of token arrays ``[..., T]``: negative log-likelihood, entropy and KL estimates.

    Reads ``logprobs`` and, when there are any, ``entropy``, ``old_logprobs``, ``reference_logprobs`` and ``where``.
    """
    logprobs, where = numerics.accumulate(batch["logprobs"]), batch.get("where")
    reported = {"nll": mean_of(-logprobs, where)}
    if "entropy" in batch:
        reported["entropy"] = mean_of(batch["entropy"], where)
    for name in ("old", "reference"):
        if f"{name}_logprobs" in batch:
            d = numerics.clean(logprobs - batch[f"{name}_logprobs"], where)
            reported[f"{name}_kl_k1"] = mean_of(d, where)
            reported[f"{name}_kl_k2"] = mean_of(jnp.square(d) / 2, where)
            reported[f"{name}_kl_k3"] = mean_of(jnp.expm1(-d) + d, where)
    return reported

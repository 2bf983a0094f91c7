"""What a run reports: the same names for every method, recomputed from the same arrays, mergeable over any split.

A metric is a few sums (:class:`Mean`, :class:`Covariance`) or an extreme: merge micro-batches, shards and batches by
name, and take the ``value`` at the end. The parts are arrays, or numbers on the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.types import Array, Batch


class Mean(NamedTuple):
    """A mean in two parts that add up."""

    sum: Any
    count: Any

    @property
    def value(self) -> Any:
        """The mean; 0 of nothing."""
        return _divide(self.sum, self.count)


class Covariance(NamedTuple):
    """A covariance in four sums that add up."""

    x: Any
    y: Any
    product: Any
    count: Any

    @property
    def value(self) -> Any:
        """``E[xy] - E[x] E[y]``; 0 of nothing."""
        x, y, product = (_divide(part, self.count) for part in self[:3])
        return product - x * y


class Largest(NamedTuple):
    """The largest value seen; minus infinity of nothing."""

    value: Any


class Smallest(NamedTuple):
    """The smallest value seen; infinity of nothing."""

    value: Any


def _divide(total: Any, count: Any) -> Any:
    """A mean; on the host, where metrics of many steps come together, in double precision."""
    if isinstance(count, float):
        return total / count if count else 0.0
    return numerics.safe_divide(total, count)


Metric = Mean | Covariance | Largest | Smallest
KINDS: dict[str, type] = {kind.__name__: kind for kind in (Mean, Covariance, Largest, Smallest)}
Metrics = dict[str, Metric]


def mean_of(x: Array, where: Array | None = None) -> Mean:
    """The mean of the selected entries of an array, without gradient.

    >>> print(mean_of(jnp.array([1.0, 3.0, 100.0]), jnp.array([True, True, False])).value)
    2.0
    """
    x = jax.lax.stop_gradient(numerics.accumulate(x))
    return Mean(numerics.sum(x, where=where), numerics.count(where, x))


def covariance_of(x: Array, y: Array, where: Array | None = None) -> Covariance:
    """The covariance of the selected entries of two arrays, without gradient.

    >>> print(covariance_of(jnp.array([1.0, 3.0]), jnp.array([0.0, 2.0])).value)
    1.0
    """
    x, y = (jax.lax.stop_gradient(numerics.accumulate(part)) for part in jnp.broadcast_arrays(x, y))
    count = numerics.count(where, x)
    return Covariance(*(numerics.sum(part, where=where) for part in (x, y, x * y)), count=count)


def extremes_of(x: Array, where: Array | None = None) -> tuple[Smallest, Largest]:
    """The smallest and the largest of the selected entries of an array, without gradient.

    >>> print(*extremes_of(jnp.array([1.0, 3.0, 100.0]), jnp.array([True, True, False])))
    Smallest(value=Array(1., dtype=float32)) Largest(value=Array(3., dtype=float32))
    """
    x = jax.lax.stop_gradient(numerics.accumulate(x))
    low, high = numerics.clean(x, where, jnp.inf), numerics.clean(x, where, -jnp.inf)
    return Smallest(low.min(initial=jnp.inf)), Largest(high.max(initial=-jnp.inf))


def merge(a: Mapping[str, Metric], b: Mapping[str, Metric]) -> Metrics:
    """Puts two sets of metrics together by name; a name that only one has is kept.

    >>> print(merge({"x": Mean(1.0, 1)}, {"x": Mean(3.0, 1)})["x"].value)
    2.0
    """
    return dict(a) | dict(b) | {name: _merged(a[name], b[name]) for name in a if name in b}


def _merged(a: Any, b: Any) -> Any:
    if isinstance(a, Largest | Smallest):
        larger = isinstance(a, Largest)
        if isinstance(a.value, float):
            return type(a)((max if larger else min)(a.value, b.value))
        return type(a)((jnp.maximum if larger else jnp.minimum)(a.value, b.value))
    return type(a)(*(x + y for x, y in zip(a, b, strict=True)))


def nothing(like: Mapping[str, Any]) -> Metrics:
    """Metrics of no data, to merge others into; ``like`` has arrays or their shapes.

    >>> print(nothing({"x": Largest(jnp.zeros(()))})["x"].value)
    -inf
    """
    start = {Largest: -jnp.inf, Smallest: jnp.inf}
    fill = {name: start.get(type(metric), 0) for name, metric in like.items()}
    return {
        name: type(metric)(*(jnp.full(part.shape, fill[name], part.dtype) for part in metric))
        for name, metric in like.items()
    }


def psum(metrics: Mapping[str, Metric], axis_name: numerics.AxisName = None) -> Metrics:
    """Global metrics from those of every shard."""
    if axis_name is None:
        return dict(metrics)
    collective = {Largest: jax.lax.pmax, Smallest: jax.lax.pmin}
    return {
        name: type(metric)(*collective.get(type(metric), jax.lax.psum)(tuple(metric), axis_name))
        for name, metric in metrics.items()
    }


def values(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The values as Python numbers, by name."""
    return {name: float(metric.value) for name, metric in metrics.items()}


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
    reported: Metrics = {"nll": mean_of(-logprobs, where)}
    if "entropy" in batch:
        reported["entropy"] = mean_of(batch["entropy"], where)
    for name in ("old", "reference"):
        if f"{name}_logprobs" in batch:
            d = numerics.clean(logprobs - batch[f"{name}_logprobs"], where)
            reported[f"{name}_kl_k1"] = mean_of(d, where)
            reported[f"{name}_kl_k2"] = mean_of(jnp.square(d) / 2, where)
            reported[f"{name}_kl_k3"] = mean_of(jnp.expm1(-d) + d, where)
    return reported


def policy_gradient(
    batch: Batch, advantages: Array | None = None, selected: Array | None = None, *, low: float = 0.2, high: float = 0.2
) -> Metrics:
    r"""Metrics of a policy-gradient step on token arrays ``[..., T]``, beside those of :func:`tokens`.

    Args:
      batch: ``logprobs``, ``where``, and ``old_logprobs`` where there are any.
      advantages: ``[..., T]`` or ``[..., 1]``.
      selected: ``[..., T]`` tokens that a method works on.
      low: the clip shares count ratios below ``1 - low`` of negative advantages,
      high: and above ``1 + high`` of positive ones.

    Returns:
      ``log_ratio_min``, ``log_ratio_max`` (nats, before any clip), ``clip_share_low``, ``clip_share_high``,
      ``covariance`` of log-probability and advantage over all tokens, ``advantage_size`` (mean absolute value) and
      ``selected``, those whose arrays are there.
    """
    logprobs, where = numerics.accumulate(batch["logprobs"]), batch.get("where")
    reported: Metrics = {}
    if selected is not None:
        reported["selected"] = mean_of(jnp.broadcast_to(selected, logprobs.shape), where)
    if advantages is not None:
        advantages = jnp.broadcast_to(numerics.accumulate(advantages), logprobs.shape)
        reported["covariance"] = covariance_of(numerics.clean(logprobs, where), advantages, where)
        reported["advantage_size"] = mean_of(jnp.abs(advantages), where)
    if "old_logprobs" in batch:
        d = numerics.clean(logprobs - batch["old_logprobs"], where)
        reported["log_ratio_min"], reported["log_ratio_max"] = extremes_of(d, where)
        if advantages is not None:
            reported["clip_share_low"] = mean_of((d < jnp.log1p(-min(low, 1.0))) & (advantages < 0), where)
            reported["clip_share_high"] = mean_of((d > jnp.log1p(high)) & (advantages > 0), where)
    return reported

"""Baselines of a group: what :func:`rlx.policy.advantages.group_normalize` subtracts from the rewards.

A centre is a function ``(rewards [..., K], where [..., K] or None) -> [..., K] or [..., 1]``; the responses to a prompt
stand on the last axis. Rewards come without gradient and 0 where masked. A centre says nothing about a group with fewer
than two members: that is the ``singleton`` policy.
"""

from collections.abc import Callable

import jax.numpy as jnp

from rlx import numerics
from rlx.types import Array, check_positive

Centre = Callable[[Array, Array | None], Array]


def _between_extremes(value: Array, rewards: Array, where: Array | None) -> Array:
    """An average of equal rewards is that reward exactly: what rounding adds would be divided by a tiny deviation."""
    low = numerics.clean(rewards, where, jnp.inf).min(-1, keepdims=True)
    high = numerics.clean(rewards, where, -jnp.inf).max(-1, keepdims=True)
    return jnp.where(low > high, 0, jnp.clip(value, low, high))


def mean(rewards: Array, where: Array | None = None) -> Array:
    """The mean of the group (GRPO, Dr. GRPO).

    >>> print(mean(jnp.array([1.0, 0.0, 9.0]), jnp.array([True, True, False])))
    [0.5]
    """
    return _between_extremes(numerics.mean(rewards, -1, where=where, keepdims=True), rewards, where)


def leave_one_out(rewards: Array, where: Array | None = None) -> Array:
    r"""The mean of the others, :math:`\frac{1}{n-1}\sum_{j\ne i} r_j` (RLOO).

    >>> print(leave_one_out(jnp.array([3.0, 0.0, 1.0])))
    [0.5 2.  1.5]
    """
    n = numerics.count(where, rewards, -1, keepdims=True)
    return rewards - numerics.safe_divide(n, n - 1) * (rewards - mean(rewards, where))


def second_best(rewards: Array, where: Array | None = None) -> Array:
    """The largest of the rest, the best member (one of them, if several tie) aside (pass@k).

    >>> print(second_best(jnp.array([3.0, 0.0, 1.0])), second_best(jnp.array([3.0, 0.0, 3.0])))
    [1.] [3.]
    """
    seen = numerics.clean(rewards, where, -jnp.inf)
    rest = jnp.where(jnp.arange(seen.shape[-1]) == seen.argmax(-1, keepdims=True), -jnp.inf, seen)
    second = rest.max(-1, keepdims=True)
    return jnp.where(jnp.isneginf(second), 0, second)


def shifted(shift: float) -> Centre:
    """The mean plus a constant (AsymRE).

    >>> print(shifted(-0.5)(jnp.array([1.0, 0.0]), None))
    [0.]
    """
    return lambda rewards, where=None: mean(rewards, where) + shift


def log_mean_exp(tau: float) -> Centre:
    r"""The soft maximum :math:`\tau\log\frac1n\sum_j e^{r_j/\tau}` (OPMD): the mean for large tau, the maximum at 0.

    Raises:
      UserError: tau is not above 0.

    >>> print(log_mean_exp(0.01)(jnp.array([1.0, 1.0]), None))
    [1.]
    """
    check_positive(tau=tau)

    def centre(rewards: Array, where: Array | None = None) -> Array:
        n = jnp.maximum(numerics.count(where, rewards, -1, keepdims=True), 1)
        total = numerics.logsumexp(rewards / tau, where=where, keepdims=True)
        return _between_extremes(tau * (total - jnp.log(n)), rewards, where)

    return centre


def weighted(weights: Array) -> Centre:
    r"""The weighted mean :math:`\sum_j w_j r_j / \sum_j w_j`, 0 if all weights are (OPO: w are lengths).

    >>> print(weighted(jnp.array([3, 1]))(jnp.array([1.0, 0.0]), None))
    [0.75]
    """

    def centre(rewards: Array, where: Array | None = None) -> Array:
        w = numerics.clean(numerics.accumulate(weights).astype(rewards.dtype), where)
        total = w.sum(-1, keepdims=True)
        average = numerics.safe_divide(numerics.sum(w * rewards, -1, where=where, keepdims=True), total)
        return jnp.where(total > 0, _between_extremes(average, rewards, where), 0)

    return centre

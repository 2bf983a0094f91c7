"""Parts of ranking: ranks, gains, discounts, cumulative gain, and the ordered pairs of a list.

Candidates stand on the last axis ``[..., K]``; ``where [..., K]`` marks real ones, masked ones rank last. Ranks start
at 1 and, like all that is made of them, are constants.
"""

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.preference import compare
from rlx.types import Array


def rank(keys: Array, where: Array | None = None) -> Array:
    """Rank of every candidate by descending key, 1 for the largest, ties by position: ``[..., K]`` int.

    >>> print(rank(jnp.array([0.5, 9.0, 2.0, 0.5]), jnp.array([True, False, True, True])))
    [2 4 1 3]
    """
    return jnp.argsort(compare.descending(keys, where), axis=-1) + 1


def gain(labels: Array) -> Array:
    """Exponential gain ``2^y - 1`` of graded labels.

    >>> print(gain(jnp.array([0.0, 1.0, 3.0])))
    [0. 1. 7.]
    """
    return jnp.exp2(numerics.accumulate(labels)) - 1


def discount(ranks: Array, topn: int | None = None) -> Array:
    r""":math:`1/\log_2(1 + r)`, 0 for ranks beyond ``topn`` and below 1.

    >>> print(discount(jnp.array([0, 1, 3, 4]), topn=3))
    [0.  1.  0.5 0. ]
    """
    counted = ranks >= 1 if topn is None else (ranks >= 1) & (ranks <= topn)
    return jnp.where(counted, 1 / jnp.log2(1 + numerics.accumulate(jnp.where(counted, ranks, 1))), 0)


def cumulative_gain(gains: Array, keys: Array, *, topn: int | None = None, where: Array | None = None) -> Array:
    r"""Discounted cumulative gain :math:`\sum_{r_i \le n} g_i / \log_2(1 + r_i)`, ranked by ``keys``: ``[...]``.

    With the gains themselves as keys it is the ideal one.

    >>> print(f"{cumulative_gain(jnp.array([3.0, 7.0]), jnp.array([2.0, 1.0])):.4f}")
    7.4165
    """
    return numerics.sum(gains * discount(rank(keys, where), topn), -1, where=where)


def differences(x: Array) -> Array:
    """``x_i - x_j`` of all pairs: ``[..., K] -> [..., K, K]``.

    >>> print(differences(jnp.array([3.0, 1.0])))
    [[ 0.  2.]
     [-2.  0.]]
    """
    return x[..., :, None] - x[..., None, :]


def better(labels: Array, where: Array | None = None) -> Array:
    """Pairs of real candidates of which i is labelled above j; a tie is no pair: ``[..., K, K]`` bool.

    >>> print(better(jnp.array([1, 0, 1]))[0])
    [False  True False]
    """
    labels = jax.lax.stop_gradient(jnp.asarray(labels))
    above = labels[..., :, None] > labels[..., None, :]
    return above if where is None else above & where[..., :, None] & where[..., None, :]


def flat(pairs: Array) -> Array:
    """Pairs as units on the last axis, ``[..., K, K] -> [..., K * K]``: the rows of a reduction are then lists.

    ``mean`` is then over all pairs of the batch, ``sequence_sum`` the mean over lists of the sum over their pairs.
    """
    return pairs.reshape(*pairs.shape[:-2], -1)

"""Plackett-Luce distillation: classes or tokens on the last axis ``[..., V]``; a unit is an example or a token.

``where [...]`` marks real units. The weightings of the terms are functions of the teacher's logits in ranking order.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean, token_mean
from rlx.preference import compare
from rlx.types import Array, Reduce, check_positive, check_shapes

Weighting = Callable[[Array, float], Array]
"""``(teacher logits in ranking order [..., V], temperature) -> weights of the terms [..., V]``."""


def teacher(ranked: Array, temperature: float) -> Array:
    r"""The teacher's own mass at each rank, :math:`\mathrm{softmax}(t/T)`: PLD.

    >>> print(teacher(jnp.array([0.0, 0.0]), 1.0))
    [0.5 0.5]
    """
    return numerics.softmax(numerics.accumulate(ranked) / temperature)


def uniform(ranked: Array, temperature: float) -> Array:
    """``1/V`` at each rank: ListMLE of the ranking.

    >>> print(uniform(jnp.array([3.0, 0.0]), 1.0))
    [0.5 0.5]
    """
    return jnp.full(ranked.shape, 1 / ranked.shape[-1], numerics.accumulate(ranked).dtype)


def top1(ranked: Array, temperature: float) -> Array:
    """All weight on the first rank, the target: cross-entropy.

    >>> print(top1(jnp.array([3.0, 0.0]), 1.0))
    [1. 0.]
    """
    first = jnp.arange(ranked.shape[-1]) == 0
    return jnp.broadcast_to(first, ranked.shape).astype(numerics.accumulate(ranked).dtype)


def position(ranked: Array, temperature: float) -> Array:
    r""":math:`2^{V-k} - 1` at rank k, not normalised: p-ListMLE. Finite up to V = 127 in float32.

    >>> print(position(jnp.array([3.0, 0.0, 1.0]), 1.0))
    [3. 1. 0.]
    """
    left = jnp.arange(ranked.shape[-1] - 1, -1, -1)
    weights = jnp.ldexp(jnp.ones((), numerics.accumulate(ranked).dtype), left) - 1
    return jnp.broadcast_to(weights, ranked.shape)


def ranking(teacher_logits: Array, targets: Array, where: Array | None = None) -> Array:
    """The target, then all other classes by descending teacher logit, ties by position; ruled-out classes last.

    Args:
      teacher_logits: ``[..., V]``.
      targets: ``[...]`` int.
      where: ``[..., V]`` the classes that can be ranked.

    Returns:
      ``[..., V]`` int, best first.

    >>> print(ranking(jnp.array([0.0, 5.0, 1.0]), jnp.array(2)))
    [2 1 0]
    """
    is_target = jnp.arange(teacher_logits.shape[-1]) == targets[..., None]
    return compare.descending(jnp.where(is_target, jnp.inf, numerics.accumulate(teacher_logits)), where)


def pld(
    logits: Array,
    teacher_logits: Array,
    targets: Array,
    *,
    temperature: float = 1.0,
    weighting: Weighting = teacher,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Plackett-Luce distillation: the student ranks the target first and the rest as the teacher does.

    .. math:: \ell = \sum_k \alpha_k\left(\log\sum_{l\ge k} e^{s_{\pi_l}} - s_{\pi_k}\right),\quad
       \alpha_k = \mathrm{softmax}(t/T)_{\pi_k}

    with :math:`\pi` of :func:`ranking`. The temperature divides the teacher's logits alone, the order does not depend
    on it. Classes that the student rules out (logit -inf) leave the ranking; a target among them costs infinity.

    Args:
      logits: ``[..., V]`` student logits s.
      teacher_logits: ``[..., V]`` teacher logits t; a constant.
      targets: ``[...]`` int true classes; one outside of the classes gives NaN where it is not masked.
      temperature: T, above 0.
      weighting: :func:`teacher`, :func:`uniform`, :func:`top1`, :func:`position` or your own.
      where: ``[...]`` real units.
      reduce: how units become one number; None gives ``[...]``.

    Raises:
      UserError: temperature is not above 0, or the shapes disagree.

    >>> print(f"{pld(jnp.zeros(3), jnp.array([0.0, 5.0, 1.0]), jnp.array(2), weighting=uniform):.4f}")
    0.5973

    References:
      *Plackett-Luce Distillation*, arXiv:2506.12542.
    """
    check_shapes(logits=logits, teacher_logits=teacher_logits)
    check_shapes(**{"targets": targets, "where": where, "the logits without their last axis": logits[..., 0]})
    check_positive(temperature=temperature)
    rows = None if where is None else where[..., None]
    logits, targets = numerics.clean(logits, rows), numerics.clean(targets, where)
    teacher_logits = jax.lax.stop_gradient(numerics.clean(teacher_logits, rows))
    classes = jnp.arange(logits.shape[-1])
    possible = ~jnp.isneginf(logits) | (classes == targets[..., None])
    order = ranking(teacher_logits, targets, possible)
    terms, real = compare.plackett_luce(logits, order, possible)
    weights = weighting(jnp.take_along_axis(teacher_logits, order, -1), temperature)
    loss = numerics.sum(weights * terms, -1, where=real & (weights != 0))
    known = (targets >= 0) & (targets < len(classes))
    return aggregate.finish(jnp.where(known, loss, jnp.nan), where, reduce)


def pld_token_level(
    logits: Array,
    teacher_logits: Array,
    targets: Array,
    *,
    temperature: float = 1.0,
    where: Array | None = None,
    reduce: Reduce | None = token_mean,
) -> Array:
    r"""Plackett-Luce distillation of every token: :func:`pld` over ``[..., T, V]`` with the token mean.

    .. math:: \ell_t = \sum_k \alpha_{t,k}\left(\log\sum_{l\ge k} e^{s_{t,\pi_l}} - s_{t,\pi_k}\right)

    Args:
      logits: ``[..., T, V]`` student logits, position t predicts ``targets[..., t]``.
      teacher_logits: ``[..., T, V]`` teacher logits; a constant.
      targets: ``[..., T]`` int tokens.
      temperature: divides the teacher's logits, above 0.
      where: ``[..., T]`` tokens that count.
      reduce: how tokens become one number (:mod:`rlx.aggregate`); None gives ``[..., T]``.

    Raises:
      UserError: temperature is not above 0, or the shapes disagree.

    >>> print(f"{pld_token_level(jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.array([0, 2])):.4f}")
    0.5973

    References:
      *Plackett-Luce Distillation*, arXiv:2506.12542, applied to tokens.
    """
    return pld(logits, teacher_logits, targets, temperature=temperature, where=where, reduce=reduce)

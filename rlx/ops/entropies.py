"""Entropies of next-token distributions in nats: Shannon, Renyi, Tsallis, tempered. The vocabulary is the last axis.

All take logits ``[..., V]`` (-inf marks impossible tokens) and give ``[...]``, 0 where masked. Values and gradients
stay finite for saturated rows; a row of -inf has entropy 0; adding a constant to a row changes nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.ops.probabilities import Distribution, distribution, from_top
from rlx.ops.statistics import token_statistics

_NEAR = 0.25
"""Orders this close to 1 are computed from their distance to 1, where the general formula is 0/0."""

_LARGEST = 60.0
"""Largest logarithm of a weight: its exponential, and sums of it, stay finite in float32."""


def token_entropy(
    logits: jax.Array, *, temperature: float | jax.Array = 1.0, where: jax.Array | None = None
) -> jax.Array:
    r"""Shannon entropy of the next token: :math:`H = -\sum_v p_v \log p_v,\; p = \mathrm{softmax}(z / \tau)`.

    .. math:: \partial H / \partial z_v = -p_v (\log p_v + H) / \tau

    Args:
        logits: ``[..., V]``.
        temperature: tau.
        where: bool ``[...]`` real tokens.

    >>> print(f"{token_entropy(jnp.zeros(4)):.4f}")
    1.3863
    """
    return _statistic("entropy", from_top(logits), where, temperature)


def _statistic(name: str, logits: jax.Array, where: jax.Array | None, temperature: float | jax.Array = 1.0):
    """One of :func:`rlx.ops.token_statistics` that needs no target."""
    targets = jnp.zeros(logits.shape[:-1], jnp.int32)
    options = {"where": where, "temperature": temperature, "statistics": (name,)}
    return getattr(token_statistics(logits, targets, **options), name)


def _excess(d: Distribution, order: float) -> jax.Array:
    """``sum_v (p_v^order - p_v)``, accurate however close the order is to 1."""
    exponent = (order - 1) * d.logp
    small = jnp.abs(exponent) < 1
    near = d.p * jnp.expm1(jnp.where(small, exponent, 0))
    return jnp.where(d.possible, jnp.where(small, near, jnp.exp(order * d.logp) - d.p), 0).sum(-1)


def _check_order(name: str, order: float) -> None:
    if not order >= 0:
        raise errors.UserError(f"{name} is the order of an entropy and must be at least 0, got {order}.")


def renyi_entropy(logits: jax.Array, *, alpha: float = 2.0, where: jax.Array | None = None) -> jax.Array:
    r"""Renyi entropy :math:`H_\alpha = \frac{1}{1-\alpha} \log \sum_v p_v^\alpha`.

    alpha 0 is the logarithm of the number of possible tokens, 1 Shannon's entropy, 2 the collision entropy, inf
    :math:`-\log\max p`. For a sampled token, :math:`E\|\nabla_z \log p\|^2 = 1 - e^{-H_2}`.

    Args:
        logits: ``[..., V]``.
        alpha: order, a Python number.
        where: bool ``[...]`` real tokens.

    Raises:
        UserError: alpha is negative or NaN.

    >>> print(f"{renyi_entropy(jnp.array([0.0, 0.0, -jnp.inf]), alpha=3.0):.4f}")
    0.6931

    References:
        Renyi, *On Measures of Entropy and Information*, 1961.
    """
    _check_order("alpha", alpha)
    if alpha in (1, 2):
        return _statistic("entropy" if alpha == 1 else "renyi2", logits, where)
    if math.isinf(alpha):
        largest = _statistic("max_logp", logits, where)
        return jnp.where(jnp.isneginf(largest), 0, -largest)
    d = distribution(logits, where=where)
    if abs(alpha - 1) < _NEAR:
        log_power = jnp.log1p(_excess(d, alpha))
    else:
        log_power = numerics.logsumexp(alpha * d.logp, where=d.possible)
    return numerics.clean(jnp.where(d.possible.any(-1), log_power, 0) / (1 - alpha), where)


def tsallis_entropy(logits: jax.Array, *, q: float = 2.0, where: jax.Array | None = None) -> jax.Array:
    r"""Tsallis entropy :math:`S_q = \frac{1 - \sum_v p_v^q}{q - 1}`, Shannon's at q = 1.

    Some papers write :math:`\frac12 (1 - \sum p^2)` at q = 2, half of this. Below 1 the gradient of rare tokens
    dominates.

    Args:
        logits: ``[..., V]``.
        q: order, a Python number.
        where: bool ``[...]`` real tokens.

    Raises:
        UserError: q is negative or NaN.

    >>> print(f"{tsallis_entropy(jnp.zeros(4)):.4f}")
    0.7500

    References:
        Tsallis, *Possible Generalization of Boltzmann-Gibbs Statistics*, 1988.
    """
    _check_order("q", q)
    if q == 1:
        return token_entropy(logits, where=where)
    d = distribution(logits, where=where)
    return numerics.clean(jnp.where(d.possible.any(-1), -_excess(d, q) / (q - 1), 0), where)


class TemperedEntropy(NamedTuple):
    """What changes when a policy p is sampled at a temperature, as q. All ``[...]``.

    Attributes:
        entropy: that of q.
        cross_entropy: ``-sum q log p``.
        slope: derivative of the entropy of q by the temperature, at least 0.
        weight: ``q(y) / p(y)`` of the target, the importance weight of a token drawn from p; at most e^60.
    """

    entropy: jax.Array
    cross_entropy: jax.Array
    slope: jax.Array
    weight: jax.Array


def tempered_entropy(
    logits: jax.Array, targets: jax.Array, *, temperature: float = 1.2, where: jax.Array | None = None
) -> TemperedEntropy:
    r"""Entropy of :math:`q = \mathrm{softmax}(z / \tau)`, its slope in tau, and q beside the untempered policy p.

    .. math:: \frac{d H(q)}{d \tau} = \frac{\mathrm{Var}_q(\log q)}{\tau} \ge 0,\qquad w = \frac{q(y)}{p(y)}

    Args:
        logits: ``[..., V]``.
        targets: int ``[...]`` sampled tokens y.
        temperature: tau (AEPO samples at 1.2 to raise the entropy, at 0.8 to lower it).
        where: bool ``[...]`` real tokens.

    >>> print(f"{tempered_entropy(jnp.array([0.0, 2.0]), jnp.array(0), temperature=2.0).weight:.4f}")
    2.2562

    References:
        *Arbitrary Entropy Policy Optimization* (AEPO), arXiv:2510.08141.
    """
    logits, options = from_top(logits), {"where": where, "temperature": temperature}
    hot = token_statistics(logits, targets, **options, statistics=("logp", "entropy", "variance"))
    cold = token_statistics(logits, targets, where=where, statistics=("logp",))
    q, p = distribution(logits / temperature, where=where), distribution(logits, where=where)
    # a target that is impossible has no weight, rather than exp(-inf + inf)
    possible = ~jnp.isneginf(cold.logp)  # type: ignore[arg-type]
    log_weight = jnp.where(possible, hot.logp, 0) - jnp.where(possible, cold.logp, 0)  # type: ignore[arg-type]
    weight = jnp.where(possible, jnp.exp(jnp.minimum(log_weight, _LARGEST)), 0)
    cleaned = (numerics.clean(x, where) for x in (-q.mean(p.logp), hot.variance / temperature, weight))  # type: ignore[operator]
    return TemperedEntropy(hot.entropy, *cleaned)  # type: ignore[arg-type]

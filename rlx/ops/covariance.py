"""Covariance of log-probabilities and advantages: over the sampled tokens of a batch, and over the vocabulary.

The entropy of a softmax policy falls by the covariance of log-probability and change of logit,
``H(pi') - H(pi) = -Cov_{a ~ pi}(log pi(a), dz_a)`` to first order. Over the vocabulary that is exact; the covariance
over sampled tokens estimates it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.ops.probabilities import distribution


def token_covariance(
    logprobs: jax.Array,
    advantages: jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array:
    r"""Contribution of each token to the covariance of log-probability and advantage.

    .. math:: C_t = (\log\pi_t - \overline{\log\pi})\,(A_t - \bar A)

    with means over all selected tokens of the batch.

    Args:
        logprobs: ``[...]``.
        advantages: broadcastable to ``logprobs``.
        where: bool ``[...]``; masked tokens give 0 and count in no mean.
        axis_name: mapped axes over which the batch is split.

    >>> print(token_covariance(jnp.array([-1.0, -3.0]), jnp.array([1.0, -1.0])))
    [1. 1.]

    References:
        Cui et al., *The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models*, arXiv:2505.22617.
    """
    x, y = _centred(logprobs, advantages, where, axis_name)
    return numerics.clean(x * y, where)


def _centred(logprobs, advantages, where, axis_name) -> tuple[jax.Array, ...]:
    """Both arrays minus their means, in the shape of ``logprobs``; clean where masked."""
    both = (
        numerics.clean(numerics.accumulate(jnp.broadcast_to(x, logprobs.shape)), where) for x in (logprobs, advantages)
    )
    return tuple(x - numerics.mean(x, where=where, axis_name=axis_name) for x in both)


class BatchCovariance(NamedTuple):
    """Over the tokens of a batch, scalars: covariance, variances (all 1/N) and the correlation, 0 without variance."""

    covariance: jax.Array
    correlation: jax.Array
    variance_logprobs: jax.Array
    variance_advantages: jax.Array


def batch_covariance(
    logprobs: jax.Array,
    advantages: jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> BatchCovariance:
    """Mean of :func:`token_covariance`, whose arguments these are: positive where training lowers the entropy.

    >>> print(batch_covariance(jnp.array([-1.0, -3.0]), jnp.array([1.0, -1.0])).covariance)
    1.0
    """
    x, y = _centred(logprobs, advantages, where, axis_name)
    options = {"where": where, "axis_name": axis_name}
    covariance, *variances = (numerics.mean(product, **options) for product in (x * y, x * x, y * y))
    varied = (variances[0] > 0) & (variances[1] > 0)
    scale = jnp.where(varied, jnp.sqrt(jnp.where(varied, variances[0] * variances[1], 1)), 0)
    return BatchCovariance(covariance, numerics.safe_divide(covariance, scale), *variances)


def vocabulary_covariance(logits: jax.Array, action_values: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""Covariance over the vocabulary of the log-probability and any number that a token has.

    .. math:: \mathrm{Cov}_{a\sim\pi}(\log\pi(a), x_a)

    With x the change of the logits it is minus the change of the entropy, to first order: ``x = eta A`` for the natural
    policy gradient, ``x = eta pi (A - E A)`` for the plain one on a table of logits (:func:`policy_gradient_step`).

    Args:
        logits: ``[..., V]``; -inf marks impossible tokens.
        action_values: ``[..., V]`` x.
        where: bool ``[...]`` real positions.

    Returns:
        ``[...]``, 0 where masked; differentiable in both.

    >>> print(f"{vocabulary_covariance(jnp.log(jnp.array([0.8, 0.2])), jnp.array([1.0, 0.0])):.4f}")
    0.2218

    References:
        Cui et al., *The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models*, arXiv:2505.22617.
    """
    d = distribution(logits, where=where)
    values = numerics.accumulate(action_values)
    values = jnp.where(d.possible if where is None else d.possible & where[..., None], values, 0)
    surprise = d.logp - d.mean(d.logp)[..., None]
    return numerics.clean(d.mean(surprise * (values - d.mean(values)[..., None])), where)


def policy_gradient_step(logits: jax.Array, action_values: jax.Array, *, natural: bool = False) -> jax.Array:
    r"""Direction of the logits in an exact policy-gradient step: ``[..., V]``.

    .. math:: \pi(a)\,(A_a - \mathrm{E}_\pi A)\quad\text{(plain)},\qquad A_a\quad\text{(natural)}

    Args:
        logits: ``[..., V]``; impossible tokens do not move.
        action_values: ``[..., V]`` A, rewards or advantages.
        natural: the natural gradient.

    >>> print(policy_gradient_step(jnp.zeros(2), jnp.array([1.0, 0.0])))
    [ 0.25 -0.25]
    """
    d = distribution(logits)
    values = jnp.where(d.possible, numerics.accumulate(action_values), 0)
    return values if natural else d.p * (values - d.mean(values)[..., None])


def discriminators(logits: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""Slope of the entropy in every logit, with the sign turned: :math:`S_k = p_k (H + \log p_k)`, ``[..., V]``.

    Raising logit k by epsilon changes the entropy by :math:`-\epsilon S_k` to first order; they sum to 0.

    >>> print(discriminators(jnp.zeros(4)))
    [0. 0. 0. 0.]
    """
    d = distribution(logits, where=where)
    return d.p * (d.logp - d.mean(d.logp)[..., None])


class Discriminator(NamedTuple):
    """Of a sampled token, ``[...]``: its S, the policy's mean of S, and the difference of the two."""

    sampled: jax.Array
    expected: jax.Array
    centred: jax.Array


def entropy_discriminator(logits: jax.Array, targets: jax.Array, *, where: jax.Array | None = None) -> Discriminator:
    r"""Which way rewarding a sampled token moves the entropy.

    .. math:: S_k = p_k (H + \log p_k),\qquad \Delta H = -\alpha\,(S_y - \mathrm{E}_p S) + O(\alpha^2)

    for the policy-gradient step :math:`\Delta z = \alpha (e_y - p)` of a sampled token y, with
    :math:`\alpha = \eta\,r A`: rewarding tokens whose S is above the mean lowers the entropy.

    Args:
        logits: ``[..., V]``; -inf marks impossible tokens.
        targets: int ``[...]`` sampled tokens y.
        where: bool ``[...]`` real tokens.

    Returns:
        ``Discriminator(sampled, expected, centred)``, 0 where masked; differentiable.

    >>> out = entropy_discriminator(jnp.log(jnp.array([0.8, 0.2])), jnp.array(0))
    >>> print(f"{out.sampled:.4f} {out.expected:.4f}")
    0.2218 0.1331

    References:
        *On the Entropy Dynamics in Reinforcement Fine-Tuning*, arXiv:2602.03392.
    """
    everything = discriminators(logits, where=where)
    sampled = jnp.take_along_axis(everything, targets[..., None], -1)[..., 0]
    expected = distribution(logits, where=where).mean(everything)
    return Discriminator(*(numerics.clean(x, where) for x in (sampled, expected, sampled - expected)))

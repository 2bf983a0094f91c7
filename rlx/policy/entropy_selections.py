"""Selections of tokens by entropy: boolean constants that tell the tokens to train on.

Tokens stand on the last axis ``[..., T]``; leading axes are the batch, one population for every threshold. With
``axis_name`` (pmap, shard_map) that population is the tokens of all shards.
"""

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy import select
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes

NEGLIGIBLE = 1e-12
"""A deviation below this is that of equal values: nothing stands out."""


def high_entropy(
    entropy: Array,
    *,
    fraction: float = 0.2,
    exact: bool = False,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Forking tokens: the fraction :math:`\rho` of highest entropy, :math:`H_t \ge Q_{1-\rho}(H)` (the 80/20 rule).

    As a selection it leaves the denominator of the loss alone, which is the paper's and TRL's loss. A threshold per
    response is ``jax.vmap`` of this.

    Args:
      entropy: ``[..., T]`` entropy of the policy at the token (nats); a constant.
      fraction: rho, in (0, 1].
      exact: True takes the ``max(int(rho n), 1)`` highest, ties by position; False every token at the threshold.
      where: ``[..., T]`` response tokens.
      axis_name: mapped axes the threshold is global over.

    Returns:
      ``[..., T]`` bool, False where masked.

    Raises:
      UserError: ``fraction`` is outside (0, 1], or the shapes disagree.

    >>> print(high_entropy(jnp.array([0.1, 2.0, 0.3, 0.2, 0.0])))
    [False  True False False False]

    References:
      Wang et al., *Beyond the 80/20 Rule: High-Entropy Minority Tokens Drive Effective Reinforcement Learning for LLM
      Reasoning*, arXiv:2506.01939.
    """
    check_shapes(entropy=entropy, where=where)
    select.check_fraction(fraction=fraction)
    entropy = constant(entropy, where)
    if exact:
        k = select.requested(fraction, entropy, where=where, axis_name=axis_name)
        return numerics.top_k_mask(entropy, k, where=where, axis_name=axis_name)
    high = entropy >= numerics.quantile(entropy, 1 - fraction, where=where, axis_name=axis_name)
    return high if where is None else high & where


def discriminator(logprobs: Array, entropy: Array, where: Array | None = None) -> Array:
    r"""How far training up a token lowers the entropy: :math:`S_t = \pi(y_t)\,(H_t + \log\pi(y_t))`, 0 if impossible.

    >>> print(discriminator(jnp.array([0.0, -jnp.inf]), jnp.array([0.5, 0.5])))
    [0.5 0. ]
    """
    logprobs, entropy = constant(logprobs, where), constant(entropy, where)
    finite = jnp.where(jnp.isneginf(logprobs), 0, logprobs)
    return numerics.clean(jnp.exp(logprobs) * (entropy + finite), where)


def entropy_clip_b(
    logprobs: Array,
    entropy: Array,
    advantages: Array,
    *,
    mu: float = 2.5,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Clip_B: leaves out tokens whose punishment would raise the entropy most, by the spread over the batch.

    .. math:: \text{keep} \iff A_t \ge 0 \;\lor\; S_t - \bar S \ge -\mu\,\sigma_S,\quad
       S_t = \pi(y_t)\,(H_t + \log\pi(y_t))

    One-sided, as released: a token with an advantage of 0 or more stays. The released loss is over what is kept:
    ``where & keep``.

    Args:
      logprobs: ``[..., T]`` token log-probabilities under the policy (nats).
      entropy: ``[..., T]`` its entropy at the token (nats).
      advantages: ``[..., T]`` or ``[..., 1]``.
      mu: allowed distance from the mean, in standard deviations (of the population).
      where: ``[..., T]`` response tokens: mean and deviation are over all of them.
      axis_name: mapped axes these are global over.

    Returns:
      ``[..., T]`` bool, False where masked.

    Raises:
      UserError: the shapes disagree.

    >>> logprobs = jnp.log(jnp.array([0.05, 0.5, 0.6]))
    >>> print(entropy_clip_b(logprobs, jnp.full(3, 0.1), jnp.array([1.0, -1.0, -1.0]), mu=0.5))
    [ True False  True]

    References:
      *On the Entropy Dynamics in Reinforcement Fine-Tuning of Large Language Models*, arXiv:2602.03392.
    """
    check_shapes(logprobs=logprobs, entropy=entropy, advantages=advantages, where=where)
    s = discriminator(logprobs, entropy, where)
    deviation = s - numerics.mean(s, where=where, axis_name=axis_name)
    spread = numerics.std(s, where=where, axis_name=axis_name)
    dropped = (constant(advantages, where) < 0) & (deviation < -mu * spread) & (spread >= NEGLIGIBLE)
    return ~dropped if where is None else ~dropped & where


def entropy_clip_v(
    logprobs: Array,
    entropy: Array,
    expected_discriminator: Array,
    advantages: Array,
    *,
    mu: float = 8.5,
    max_fraction: float = 1e-4,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Clip_V: leaves out tokens whose discriminator is far below its expectation over the vocabulary.

    .. math:: \text{drop} \iff A_t \le 0 \;\land\; x_t > \mu\,\sigma_x,\quad
       x_t = \mathbb{E}_{i\sim\pi}[S_i] - S_t,\quad S_i = \pi_i\,(H_t + \log\pi_i)

    and of the tokens with :math:`A_t < 0` at most :math:`\max(\lfloor f n\rfloor, 1)`, those of largest x. x is not
    centred. The released loss is over what is kept: ``where & keep``.

    Args:
      logprobs: ``[..., T]`` token log-probabilities under the policy (nats).
      entropy: ``[..., T]`` its entropy at the token (nats).
      expected_discriminator: ``[..., T]`` :math:`\sum_i \pi_i S_i` over the vocabulary.
      advantages: ``[..., T]`` or ``[..., 1]``.
      mu: in standard deviations of x (of the population).
      max_fraction: f, in (0, 1].
      where: ``[..., T]`` response tokens.
      axis_name: mapped axes deviation and count are global over.

    Returns:
      ``[..., T]`` bool, False where masked.

    Raises:
      UserError: ``max_fraction`` is outside (0, 1], or the shapes disagree.

    >>> args = jnp.log(jnp.array([0.5, 0.5])), jnp.ones(2), jnp.array([0.9, 0.2]), jnp.array([-1.0, -1.0])
    >>> print(entropy_clip_v(*args, mu=0.5))
    [False  True]

    References:
      *On the Entropy Dynamics in Reinforcement Fine-Tuning of Large Language Models*, arXiv:2602.03392.
    """
    arrays = {"expected_discriminator": expected_discriminator, "advantages": advantages, "where": where}
    check_shapes(logprobs=logprobs, entropy=entropy, **arrays)
    select.check_fraction(max_fraction=max_fraction)
    x = constant(expected_discriminator, where) - discriminator(logprobs, entropy, where)
    spread, a = numerics.std(x, where=where, axis_name=axis_name), constant(advantages, where)
    far = (x > mu * spread) & (spread >= NEGLIGIBLE) & (True if where is None else where)
    k = select.requested(max_fraction, x, where=where, axis_name=axis_name)
    dropped = numerics.top_k_mask(x, k, where=far & (a < 0), axis_name=axis_name) | (far & (a == 0))
    return ~dropped if where is None else ~dropped & where


def peaks(entropy: Array, *, rho: float = 0.8, where: Array | None = None) -> Array:
    r"""Tokens strictly above the rho-quantile of their own response: ``[..., T]`` bool, a constant.

    >>> print(peaks(jnp.array([[0.1, 0.2, 0.9], [0.5, 0.5, 0.5]]), rho=0.5))
    [[False False  True]
     [False False False]]
    """
    if not 0 <= rho <= 1:
        raise errors.UserError(f"rho is a quantile and must be in [0, 1], got {rho}.")
    entropy = constant(entropy, where)
    rows = entropy.reshape(-1, entropy.shape[-1])
    real = jnp.broadcast_to(True if where is None else where, entropy.shape)
    threshold = jax.vmap(lambda x, w: numerics.quantile(x, rho, where=w))(rows, real.reshape(rows.shape))
    return (entropy > threshold.reshape(*entropy.shape[:-1], 1)) & real

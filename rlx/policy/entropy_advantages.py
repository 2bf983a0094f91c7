"""Advantages reshaped by entropy: constants, so that nothing here adds a gradient of its own.

Responses of a prompt stand on the axis K, tokens on the last axis ``[..., K, T]``; leading axes are the batch. With
``axis_name`` (pmap, shard_map) statistics of the batch are over all shards. Always start from the original advantages:
shaping shaped ones a second time (in a second epoch on the same rollouts) is another function.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy.advantages import grpo_advantage
from rlx.policy.weights import constant, largest, smallest
from rlx.types import Array, check_positive, check_shapes


def entropy_advantage_shaping(
    advantages: Array, entropy: Array, *, alpha: float = 0.4, kappa: float = 2.0, where: Array | None = None
) -> Array:
    r"""Advantages with a bonus for uncertain tokens that never turns their sign.

    .. math:: A'_t = A_t + \min(\alpha H_t,\; |A_t|/\kappa)

    Args:
      advantages: ``[..., K, T]`` or ``[..., K, 1]``.
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats).
      alpha: 0.4 with GRPO, 0.1 with PPO.
      kappa: above 1 keeps the sign; at 1 a negative advantage can become 0.
      where: ``[..., K, T]`` response tokens.

    Returns:
      ``[..., K, T]``, a constant, 0 where masked.

    Raises:
      UserError: kappa is not above 0, or the shapes disagree.

    >>> print(entropy_advantage_shaping(jnp.array([-1.0, 1.0, 0.0]), jnp.array([9.0, 0.5, 1.0])))
    [-0.5  1.2  0. ]

    References:
      Cheng et al., *Reasoning with Exploration: An Entropy Perspective*, arXiv:2506.14758.
    """
    check_shapes(advantages=advantages, entropy=entropy, where=where)
    check_positive(kappa=kappa)
    a = constant(advantages, where)
    return numerics.clean(a + jnp.minimum(alpha * constant(entropy, where), jnp.abs(a) / kappa), where)


def aepo_advantage(
    advantages: Array,
    entropy: Array,
    *,
    weight: float = 0.2,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Advantages scaled up where the entropy is above the mean of the batch, and down below it (AEPO).

    .. math:: A'_t = A_t\left(1 + a\,\frac{H_t - \bar H}{\sigma_H}\right)

    Entropies that are equal but for rounding scale nothing.

    Args:
      advantages: ``[..., K, T]`` or ``[..., K, 1]``.
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats).
      weight: a.
      where: ``[..., K, T]`` response tokens: mean and unbiased deviation are over all of them.
      axis_name: mapped axes these are global over.

    Returns:
      ``[..., K, T]``, a constant, 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(aepo_advantage(jnp.ones(3), jnp.array([0.0, 1.0, 2.0])))
    [0.8 1.  1.2]

    References:
      Dong et al., *Agentic Entropy-Balanced Policy Optimization*, arXiv:2510.14545.
    """
    check_shapes(advantages=advantages, entropy=entropy, where=where)
    a, h = constant(advantages, where), constant(entropy, where)
    centre = numerics.mean(h, where=where, axis_name=axis_name)
    spread = numerics.std(h, where=where, ddof=1, axis_name=axis_name)
    rounding = 16 * jnp.finfo(h.dtype).eps * jnp.abs(centre)
    relative = jnp.where(spread > rounding, (h - centre) / jnp.where(spread > rounding, spread, 1), 0)
    return numerics.clean(a * (1 + weight * relative), where)


class Steps(NamedTuple):
    """Steps of every response by number, ``[..., T]``: mean value, tokens (0: no such step), and which one is next."""

    mean: Array
    count: Array
    following: Array


def steps(x: Array, turn_ids: Array, where: Array | None = None) -> Steps:
    """Means of ``x`` over the steps that tokens belong to; a response of T tokens has steps 0 to T - 1 at most.

    >>> print(steps(jnp.array([1.0, 3.0, 5.0]), jnp.array([0, 0, 2])).mean)
    [2. 0. 5.]
    """
    size = x.shape[-1]
    ids = jnp.arange(x.size // size).reshape(*x.shape[:-1], 1) * size + turn_ids
    ids = jnp.where((turn_ids >= 0) & (turn_ids < size), ids, x.size).ravel()

    def add(values: Array) -> Array:
        return jax.ops.segment_sum(numerics.clean(values, where).ravel(), ids, x.size).reshape(x.shape)

    count = add(jnp.ones_like(x))
    numbers = jnp.where(count > 0, jnp.arange(size), size)
    after = jnp.concatenate([numbers[..., 1:], jnp.full_like(numbers[..., :1], size)], -1)
    following = jax.lax.cummin(after, after.ndim - 1, reverse=True)
    return Steps(numerics.safe_divide(add(x), count), count, following)


def empg_weights(
    entropy: Array, count: Array, *, k: float, k_f: float, epsilon: float, axis_name: numerics.AxisName = None
) -> tuple[Array, Array]:
    r"""EMPG's scale :math:`e^{-k\hat H}/\overline{e^{-k\hat H}}` and clarity :math:`e^{-k_f\hat H}` of steps."""
    real = count > 0
    low, high = smallest(entropy, real, axis_name), largest(entropy, real, axis_name)
    scaled = numerics.clean((entropy - low) / (high - low + epsilon), real)
    certain = jnp.exp(-k * scaled)
    return certain / (numerics.mean(certain, where=real, axis_name=axis_name) + epsilon), jnp.exp(-k_f * scaled)


def empg(
    advantages: Array,
    entropy: Array,
    turn_ids: Array,
    *,
    k: float = 1.0,
    k_f: float = 1.0,
    zeta: float = 0.05,
    epsilon: float = 1e-8,
    centre: str = "step",
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""EMPG: certain steps count more, and steps that lead to a certain one get a bonus.

    .. math:: A'_s = A\,g(H_s) + \zeta f(H_{s+1}),\quad g = \frac{e^{-k\hat H_s}}{\overline{e^{-k\hat H}}},\;
       f = e^{-k_f\hat H},\quad \hat H = \frac{H - \min H}{\max H - \min H + \epsilon}

    with the mean entropy H of a step, extremes and means over all steps of the batch, no bonus for a last step, and the
    mean taken off in the end.

    Args:
      advantages: ``[..., K, T]`` or ``[..., K, 1]``; A is their mean over the step.
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats).
      turn_ids: ``[..., K, T]`` int, step of a token, from 0; an observation has a negative one, and gets 0, as
        does a number of T or more.
      k: strength of the scale.
      k_f: strength of the bonus.
      zeta: weight of the bonus.
      epsilon: added to the range, and to the mean below g.
      centre: the mean that is taken off: over ``step`` s or over ``token`` s, which the paper leaves open.
      where: ``[..., K, T]`` response tokens.
      axis_name: mapped axes the extremes and means are global over.

    Returns:
      ``[..., K, T]``, a constant, 0 where masked.

    Raises:
      UserError: ``centre`` is neither, or the shapes disagree.

    >>> print(empg(jnp.array([[1.0]]), jnp.zeros((1, 2)), jnp.array([[0, 1]]), zeta=0.5).round(4))
    [[ 0.25 -0.25]]

    References:
      Wang et al., *Harnessing Uncertainty: Entropy-Modulated Policy Gradients for Long-Horizon LLM Agents*,
      arXiv:2509.09265.
    """
    check_shapes(entropy=entropy, advantages=advantages, turn_ids=turn_ids, where=where)
    if centre not in ("step", "token"):
        raise errors.UserError(f"centre must be 'step' or 'token', got {centre!r}.")
    inside = (turn_ids >= 0) & (turn_ids < entropy.shape[-1])
    acting = inside if where is None else inside & where
    of = {"turn_ids": turn_ids, "where": acting}
    found = steps(constant(entropy, acting), **of)
    options = {"k": k, "k_f": k_f, "epsilon": epsilon, "axis_name": axis_name}
    scale, clarity = empg_weights(found.mean, found.count, **options)
    last = found.following >= entropy.shape[-1]
    bonus = jnp.take_along_axis(clarity, jnp.where(last, 0, found.following), -1)
    own = steps(jnp.broadcast_to(constant(advantages, acting), entropy.shape), **of).mean
    modulated = own * scale + jnp.where(last, 0, zeta * bonus)
    weight = jnp.where(found.count > 0, found.count if centre == "token" else 1.0, 0)
    total, number = (numerics.sum(x, axis_name=axis_name) for x in (weight * modulated, weight))
    modulated = modulated - numerics.safe_divide(total, number)
    return numerics.clean(jnp.take_along_axis(modulated, jnp.where(acting, turn_ids, 0), -1), acting)


def token_average(rewards: Array, lengths: Array, where: Array | None = None) -> tuple[Array, Array]:
    """Mean and population deviation of a group's rewards, each response weighted by its tokens: ``[..., 1]``.

    >>> print(token_average(jnp.array([1.0, 0.0]), jnp.array([3, 1]))[0])
    [0.75]
    """
    weights = constant(lengths, where)
    tokens = numerics.sum(weights, -1, where=where, keepdims=True)
    mean = numerics.safe_divide(numerics.sum(weights * rewards, -1, where=where, keepdims=True), tokens)
    squares = numerics.sum(weights * jnp.square(rewards - mean), -1, where=where, keepdims=True)
    return mean, jnp.sqrt(numerics.safe_divide(squares, tokens))


def hapo_advantage(
    rewards: Array,
    lengths: Array,
    *,
    scale: bool = True,
    epsilon: float = 1e-6,
    threshold: float = 5.0,
    padded_length: int | None = None,
    where: Array | None = None,
) -> Array:
    r"""HAPO's group average over tokens: long responses weigh more in the baseline.

    .. math:: A_i = \frac{r_i - \mu}{\sigma + \epsilon},\quad
       \mu = \frac{\sum_j n_j r_j}{\sum_j n_j},\; \sigma^2 = \frac{\sum_j n_j (r_j - \mu)^2}{\sum_j n_j}

    A group in which some :math:`|A|` reaches the threshold takes GRPO's advantages instead.

    Args:
      rewards: ``[..., K]`` one per response, the responses to a prompt on the last axis.
      lengths: ``[..., K]`` response tokens n.
      scale: divide by the deviation.
      epsilon: added to the deviation.
      threshold: largest advantage that is taken.
      padded_length: for parity with the released code, the padded length of a response: the threshold then also sees
        the padding, as tokens of reward 0.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``: broadcasts over the tokens. Masked responses have 0.

    Raises:
      UserError: the shapes disagree.

    >>> print(hapo_advantage(jnp.array([1.0, 0.0]), jnp.array([1, 3]), scale=False)[:, 0])
    [ 0.75 -0.25]

    References:
      Liu et al., *From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature* (HAPO),
      arXiv:2509.16591.
    """
    check_shapes(rewards=rewards, lengths=lengths, where=where)
    rewards, lengths = constant(rewards, where), constant(lengths, where)
    mean, deviation = token_average(rewards, lengths, where)
    divisor = deviation + epsilon if scale else jnp.ones_like(deviation)
    relative = numerics.clean((rewards - mean) / divisor, where)
    extreme = jnp.where(lengths > 0, jnp.abs(relative), 0).max(-1, keepdims=True)
    if padded_length is not None:
        padded = numerics.clean(lengths < padded_length, where, False).any(-1, keepdims=True)
        extreme = jnp.maximum(extreme, jnp.where(padded, jnp.abs(mean / divisor), 0))
    fallback = grpo_advantage(rewards, scale=scale, epsilon=epsilon, where=where)
    return jnp.where((extreme >= threshold)[..., None], fallback, relative[..., None])

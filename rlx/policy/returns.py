"""Advantages of tokens by scans over a response: returns, generalised advantage estimation and what is made of them.

Responses of a prompt stand on the axis K, tokens on the last axis ``[..., K, T]``; leading axes are the batch. All are
constants: no gradient flows. Masked tokens get advantage 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def reward_to_go(token_rewards: Array, *, gamma: float = 1.0, reset: bool = False, where: Array | None = None) -> Array:
    r"""Discounted sum of the rewards from a token on: :math:`G_t = r_t + \gamma G_{t+1}`.

    Args:
      token_rewards: ``[..., T]`` reward given at a token; 0 where masked.
      gamma: discount per position, masked ones included.
      reset: True starts anew after a hole in the mask, so that a token sees no reward beyond it (verl's REINFORCE++).
      where: ``[..., T]`` real tokens.

    Returns:
      ``[..., T]``, 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(reward_to_go(jnp.array([1.0, 0.0, 4.0]), gamma=0.5))
    [2. 2. 4.]
    """
    check_shapes(token_rewards=token_rewards, where=where)
    rewards = constant(token_rewards, where)
    real = jnp.broadcast_to(True if where is None or not reset else where, rewards.shape)

    def step(after: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        total = now[0] + gamma * after
        return jnp.where(now[1], total, 0), total

    start, inputs = jnp.zeros_like(rewards[..., 0]), (jnp.moveaxis(rewards, -1, 0), jnp.moveaxis(real, -1, 0))
    return numerics.clean(jnp.moveaxis(jax.lax.scan(step, start, inputs, reverse=True)[1], 0, -1), where)


def last(x: Array, where: Array | None = None) -> Array:
    """The entry of the last real token, ``[..., T] -> [...]``; 0 if there is none.

    >>> print(last(jnp.array([5.0, 7.0, 9.0]), jnp.array([True, True, False])))
    7.0
    """
    if where is None:
        return x[..., -1]
    index = (jnp.arange(x.shape[-1]) * where).argmax(-1, keepdims=True)
    return jnp.take_along_axis(numerics.clean(x, where), index, -1)[..., 0]


class Gae(NamedTuple):
    """Generalised advantage estimates and the targets of the value function, both ``[..., K, T]``."""

    advantages: Array
    returns: Array


def gae_advantage(
    token_rewards: Array,
    values: Array,
    finished: Array | None = None,
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    where: Array | None = None,
) -> Gae:
    r"""Generalised advantage estimation over tokens; masked tokens are stepped over.

    .. math:: \delta_t = r_t + \gamma V_{t'} - V_t,\quad A_t = \delta_t + \gamma\lambda A_{t'},\quad R_t = A_t + V_t

    with t' the next real token. After the last one A is 0, and V is 0 if the response is finished, else the last value
    there is. Whitening is a separate call: ``numerics.whiten(gae.advantages, where=where)``.

    Args:
      token_rewards: ``[..., K, T]`` reward given at a token.
      values: ``[..., K, T]`` value of the state a token is chosen in; a constant.
      finished: ``[..., K]`` whether a response ended by itself (1) or was cut (0); None: all ended.
      gamma: discount.
      lam: lambda, from one-step (0) to Monte-Carlo (1).
      where: ``[..., K, T]`` real tokens; a hole (a tool's output, say) is stepped over without discount.

    Returns:
      ``Gae(advantages, returns)``, 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(gae_advantage(jnp.array([0.0, 0.0, 1.0]), jnp.array([0.5, 0.5, 0.5]), lam=0.0).advantages)
    [0.  0.  0.5]

    References:
      Schulman et al., *High-Dimensional Continuous Control Using Generalized Advantage Estimation*, arXiv:1506.02438.
    """
    ended = None if finished is None else jnp.asarray(finished)[..., None]
    check_shapes(token_rewards=token_rewards, values=values, where=where, **{"finished[..., None]": ended})
    rewards, values = constant(token_rewards, where), constant(values, where)
    valid = jnp.broadcast_to(True if where is None else where, values.shape)

    def step(after: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        reward, value, real = now
        delta = reward + gamma * after[0] - value
        advantage = delta + gamma * lam * after[1]
        return (jnp.where(real, value, after[0]), jnp.where(real, advantage, after[1])), advantage

    end = jnp.zeros_like(values[..., 0])
    beyond = end if finished is None else jnp.where(jnp.asarray(finished, bool), 0, last(values, where))
    inputs = (jnp.moveaxis(rewards, -1, 0), jnp.moveaxis(values, -1, 0), jnp.moveaxis(valid, -1, 0))
    advantages = jnp.moveaxis(jax.lax.scan(step, (beyond, end), inputs, reverse=True)[1], 0, -1)
    return Gae(numerics.clean(advantages, where), numerics.clean(advantages + values, where))


def tppo_egae_advantage(
    token_rewards: Array,
    values: Array,
    finished: Array,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    where: Array | None = None,
) -> Gae:
    r"""Extended GAE of truncated PPO: the window may end before the response does.

    .. math:: A_t = \sum_{k=0}^{l-t-1} (\gamma\lambda)^k \delta_{t+k},\quad
       V_l = 0\ \text{(finished)},\quad V_l = V_{l-1}\ \text{(cut)}

    It is :func:`gae_advantage` with ``finished``, which is required here. The policy trains on the tokens that are new
    in the window; values train on finished responses.

    Args:
      token_rewards: ``[..., K, T]`` reward given at a token; a response that was cut has no outcome reward yet.
      values: ``[..., K, T]`` value of the state a token is chosen in; a constant.
      finished: ``[..., K]`` whether a response ended by itself (1) or was cut by the window (0).
      gamma: discount.
      lam: lambda.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``Gae(advantages, returns)``, 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(tppo_egae_advantage(jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]]), jnp.array([0.0]), lam=1.0).advantages)
    [[2. 0.]]

    References:
      Fan et al., *Truncated Proximal Policy Optimization*, arXiv:2506.15050.
    """
    return gae_advantage(token_rewards, values, finished, gamma=gamma, lam=lam, where=where)


def reinforce_plus_plus_advantage(
    token_rewards: Array,
    *,
    gamma: float = 1.0,
    epsilon: float = 1e-8,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""REINFORCE++: discounted returns, whitened over all tokens of the batch, without groups or a value function.

    .. math:: G_t = r_t + \gamma G_{t+1},\quad A_t = (G_t - \bar G) / \sqrt{\mathrm{Var}\,G + \epsilon}

    Args:
      token_rewards: ``[..., K, T]`` reward given at a token, a penalty for the KL from the reference included
        (:func:`rlx.policy.regularize.kl_in_reward`).
      gamma: discount.
      epsilon: added to the unbiased variance.
      where: ``[..., K, T]`` real tokens; a return does not reach back over a hole in it.
      axis_name: mapped axes that mean and variance are global over.

    Returns:
      ``[..., K, T]``, 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(reinforce_plus_plus_advantage(jnp.array([[0.0, 2.0], [0.0, 0.0]])))
    [[ 0.8660254  0.8660254]
     [-0.8660254 -0.8660254]]

    References:
      Hu et al., *REINFORCE++*, arXiv:2501.03262.
    """
    returns = reward_to_go(token_rewards, gamma=gamma, reset=True, where=where)
    return numerics.whiten(returns, where=where, epsilon=epsilon, axis_name=axis_name)


def remax_advantage(token_rewards: Array, baseline_rewards: Array, *, where: Array | None = None) -> Array:
    r"""ReMax: return minus the reward of the greedy response to the same prompt, :math:`A_t = G_t - b`.

    Args:
      token_rewards: ``[..., K, T]`` reward given at a token.
      baseline_rewards: ``[...]`` b, one number per prompt.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``[..., K, T]``, 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(remax_advantage(jnp.array([[0.0, 1.0]]), jnp.array(0.25)))
    [[0.75 0.75]]

    References:
      Li et al., *ReMax*, arXiv:2310.10505.
    """
    baseline = jnp.asarray(baseline_rewards)[..., None, None]
    check_shapes(**{"token_rewards": token_rewards, "where": where, "baseline_rewards[..., None, None]": baseline})
    return numerics.clean(reward_to_go(token_rewards, where=where) - constant(baseline), where)


_LEARNS = ("positive", "negative", "weighted")


def psr_nsr_advantage(
    token_rewards: Array,
    *,
    mode: str = "weighted",
    positive_weight: float = 0.1,
    gamma: float = 1.0,
    where: Array | None = None,
) -> Array:
    r"""Positive, negative and weighted sample reinforcement of 0/1 outcomes.

    .. math:: A_t = R_t\ \text{(positive)},\quad A_t = R_t - 1\ \text{(negative)},\quad
       A_t = \lambda R_t\ \text{if correct, else}\ R_t - 1\ \text{(weighted)}

    with R the return: ``positive`` learns from correct responses alone, ``negative`` from wrong ones alone.

    Args:
      token_rewards: ``[..., K, T]``, of a correct response 1 at its last token, else 0.
      mode: ``positive`` (PSR), ``negative`` (NSR) or ``weighted`` (W-REINFORCE).
      positive_weight: lambda of ``weighted``.
      gamma: discount.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``[..., K, T]``, 0 where masked.

    Raises:
      UserError: unknown ``mode``, or the shapes disagree.

    >>> print(psr_nsr_advantage(jnp.array([[0.0, 1.0], [0.0, 0.0]])))
    [[ 0.1  0.1]
     [-1.  -1. ]]

    References:
      Zhu et al., *The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning*, arXiv:2506.01347.
    """
    if mode not in _LEARNS:
        hint = errors.close_matches(mode, _LEARNS)
        raise errors.UserError(f"mode must be one of {', '.join(_LEARNS)}, got {mode!r}.{hint}")
    returns = reward_to_go(token_rewards, gamma=gamma, where=where)
    # a sum over tokens may be rounded: 1 is told from 0
    correct = numerics.sum(constant(token_rewards, where), -1, where=where, keepdims=True) > 0.5
    taught = {"positive": True, "negative": False, "weighted": correct}[mode]
    weight = positive_weight if mode == "weighted" else 1.0
    return numerics.clean(jnp.where(taught, weight * returns, returns - 1), where)

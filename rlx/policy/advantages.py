"""Advantage estimators: rewards to advantages. All are constants: no gradient flows through any of them.

Responses of a prompt stand on the axis K, tokens on the last axis T; leading axes are the batch. Ragged groups are
padded and marked by ``where``; masked entries get advantage 0 and enter no statistic.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes

_SINGLETON = ("raw", "zero")


def group_normalize(
    rewards: Array,
    *,
    scale: bool = True,
    ddof: int = 1,
    epsilon: float = 1e-6,
    singleton: str = "raw",
    where: Array | None = None,
) -> Array:
    r"""Rewards relative to their group: :math:`(r_i - \bar r) / (\sigma_r + \epsilon)`.

    Args:
      rewards: ``[..., K]`` rewards of the responses to a prompt.
      scale: False leaves the difference unscaled.
      ddof: 1 for the unbiased standard deviation, 0 for the population's.
      epsilon: added to the standard deviation (not the variance).
      singleton: a group with one member has no baseline: ``raw`` takes mean 0 and deviation 1, so that its reward stays
        (verl); ``zero`` gives 0.
      where: ``[..., K]`` real members.

    Returns:
      ``[..., K]``, 0 where masked.

    Raises:
      UserError: unknown ``singleton``, or the shapes disagree.

    >>> print(group_normalize(jnp.array([1.0, 0.0, jnp.nan]), epsilon=0.0, where=jnp.array([True, True, False])))
    [ 0.70710677 -0.70710677  0.        ]
    """
    check_shapes(rewards=rewards, where=where)
    if singleton not in _SINGLETON:
        hint = errors.close_matches(singleton, _SINGLETON)
        raise errors.UserError(f"singleton must be 'raw' or 'zero', got {singleton!r}.{hint}")
    rewards = constant(rewards, where)
    several = numerics.count(where, rewards, -1, keepdims=True) > 1
    centre = numerics.mean(rewards, -1, where=where, keepdims=True)
    spread = numerics.std(rewards, -1, where=where, ddof=ddof, keepdims=True) if scale else 1.0
    alone = rewards if singleton == "raw" else jnp.zeros_like(rewards)
    relative = jnp.where(several, rewards - centre, alone) / (jnp.where(several, spread, 1.0) + epsilon * scale)
    return numerics.clean(relative, where)


def grpo_advantage(
    rewards: Array,
    *,
    scale: bool = True,
    ddof: int = 1,
    epsilon: float = 1e-6,
    singleton: str = "raw",
    where: Array | None = None,
) -> Array:
    r"""Group-relative advantage of GRPO; Dr. GRPO with ``scale=False``.

    .. math:: A_i = \frac{r_i - \bar r}{\sigma_r + \epsilon}\quad\text{(GRPO)},\qquad
       A_i = r_i - \bar r\quad\text{(Dr. GRPO)}

    Args:
      rewards: ``[..., K]`` one reward per response, the responses to a prompt on the last axis.
      scale: divide by the standard deviation.
      ddof: 1 for the unbiased standard deviation (verl, TRL), 0 for the population's.
      epsilon: added to the standard deviation (verl 1e-6, TRL 1e-4).
      singleton: advantage of a response without a group: ``raw`` keeps its reward over 1 + epsilon (verl); ``zero``.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``: broadcasts over the tokens ``[..., K, T]``. Masked responses have 0.

    Raises:
      UserError: unknown ``singleton``, or the shapes disagree.

    >>> print(grpo_advantage(jnp.array([1.0, 0.0]), scale=False)[:, 0])
    [ 0.5 -0.5]

    References:
      Shao et al., *DeepSeekMath*, arXiv:2402.03300; Liu et al., *Understanding R1-Zero-Like Training* (Dr. GRPO),
      arXiv:2503.20783.
    """
    options = {"ddof": ddof, "epsilon": epsilon, "singleton": singleton, "where": where}
    return group_normalize(rewards, scale=scale, **options)[..., None]


class Gae(NamedTuple):
    """Generalised advantage estimates and the targets of the value function, both ``[..., K, T]``."""

    advantages: Array
    returns: Array


def gae_advantage(
    token_rewards: Array, values: Array, *, gamma: float = 1.0, lam: float = 1.0, where: Array | None = None
) -> Gae:
    r"""Generalised advantage estimation over tokens; masked tokens are stepped over.

    .. math:: \delta_t = r_t + \gamma V_{t'} - V_t,\quad A_t = \delta_t + \gamma\lambda A_{t'},\quad R_t = A_t + V_t

    with t' the next real token (V and A are 0 after the last). Whitening is a separate call:
    ``numerics.whiten(gae.advantages, where=where)``.

    Args:
      token_rewards: ``[..., K, T]`` reward given at a token.
      values: ``[..., K, T]`` value of the state a token is chosen in; a constant.
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
    check_shapes(token_rewards=token_rewards, values=values, where=where)
    rewards, values = constant(token_rewards, where), constant(values, where)
    valid = jnp.broadcast_to(True if where is None else where, values.shape)

    def step(after: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        reward, value, real = now
        delta = reward + gamma * after[0] - value
        advantage = delta + gamma * lam * after[1]
        return (jnp.where(real, value, after[0]), jnp.where(real, advantage, after[1])), advantage

    end = jnp.zeros_like(values[..., 0])
    inputs = (jnp.moveaxis(rewards, -1, 0), jnp.moveaxis(values, -1, 0), jnp.moveaxis(valid, -1, 0))
    advantages = jnp.moveaxis(jax.lax.scan(step, (end, end), inputs, reverse=True)[1], 0, -1)
    return Gae(numerics.clean(advantages, where), numerics.clean(advantages + values, where))

"""Credit among agents that work on one trajectory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.policy.advantages import group_normalize
from rlx.policy.weights import constant
from rlx.preference import ranking
from rlx.types import Array, check_shapes


class Credit(NamedTuple):
    """What N agents get for K trajectories of a prompt.

    Attributes:
      advantages: ``[..., K, N]``.
      rewards: ``[..., K, N]`` own reward plus the share of the common one.
      weights: ``[..., N]`` the shares, which sum to 1.
      consistency: ``[..., N]`` how well an agent's own reward ranks the trajectories (NDCG).
    """

    advantages: Array
    rewards: Array
    weights: Array
    consistency: Array


def comam_credit(
    rewards: Array,
    agent_rewards: Array,
    *,
    ddof: int = 1,
    epsilon: float = 1e-6,
    singleton: str = "raw",
    where: Array | None = None,
) -> Credit:
    r"""Ranking-consistency credit: an agent whose own reward ranks trajectories as the common one does gets more of it.

    .. math:: v_n = \mathrm{NDCG}(\text{order by } r_n, \text{gain } R),\quad w = \mathrm{softmax}(v),\quad
       A_{n} = \mathrm{GRPO}(r_n + w_n R)

    The gain is linear, discounted by :math:`1/\log_2(1 + \text{rank})`; equal own rewards rank by position. Where all R
    are 0 so is v.

    Args:
      rewards: ``[..., K]`` common reward R of a trajectory, at least 0.
      agent_rewards: ``[..., K, N]`` own rewards of the N agents.
      ddof: 1 for the unbiased standard deviation.
      epsilon: added to it.
      singleton: as in :func:`~rlx.policy.advantages.grpo_advantage`.
      where: ``[..., K]`` real trajectories.

    Returns:
      :class:`Credit`, constants; advantages and rewards are 0 where masked.

    Raises:
      UserError: unknown ``singleton``, or the shapes disagree.

    >>> own = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    >>> print(comam_credit(jnp.array([1.0, 0.0]), own).consistency)
    [1.         0.63092977]

    References:
      *CoMAM*, arXiv:2603.12631 (from a description of the paper: the variant of NDCG is a choice made here).
    """
    check_shapes(rewards=rewards, where=where, **{"agent_rewards of one agent": jnp.asarray(agent_rewards)[..., 0]})
    each = None if where is None else where[..., None, :]
    common = constant(rewards, where)[..., None, :]
    own = constant(jnp.swapaxes(agent_rewards, -1, -2), each)
    gained, ideal = (
        ranking.cumulative_gain(common, jnp.broadcast_to(keys, own.shape), where=each) for keys in (own, common)
    )
    consistency = numerics.safe_divide(gained, ideal)
    weights = jax.nn.softmax(consistency, -1)
    total = numerics.clean(own + weights[..., None] * common, each)
    advantages = group_normalize(total, ddof=ddof, epsilon=epsilon, singleton=singleton, where=each)
    return Credit(jnp.swapaxes(advantages, -1, -2), jnp.swapaxes(total, -1, -2), weights, consistency)

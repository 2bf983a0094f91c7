"""Preferences over segments of behaviour ``[..., 2, T]``, chosen first: by regret, or by the sum of rewards.

``where [..., 2, T]`` marks the real steps of segments of different lengths.
"""

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links
from rlx.types import Array, Reduce, check_shapes


def partial_return(token_rewards: Array, *, discount: float = 1.0, where: Array | None = None) -> Array:
    r"""Discounted sum of the rewards of a segment, ``[..., T] -> [...]``: :math:`\sum_t \gamma^t r_t`.

    >>> print(partial_return(jnp.array([1.0, 2.0, 4.0]), discount=0.5))
    3.0
    """
    check_shapes(token_rewards=token_rewards, where=where)
    rewards = numerics.accumulate(token_rewards)
    real = jnp.ones(rewards.shape, bool) if where is None else where
    step = numerics.accumulate(jnp.cumsum(real, -1) - real)
    return numerics.sum(numerics.clean(rewards, where) * discount**step, -1, where=where)


def regret(q_values: Array, values: Array, *, where: Array | None = None) -> Array:
    r"""How much worse than optimal a segment's actions are, ``[..., T] -> [...]``: :math:`\sum_t V^* - Q^*`.

    >>> print(regret(jnp.array([1.0, 2.0]), jnp.array([1.5, 2.0])))
    0.5
    """
    check_shapes(q_values=q_values, values=values, where=where)
    return numerics.sum(numerics.accumulate(values) - numerics.accumulate(q_values), -1, where=where)


def deterministic_regret(
    token_rewards: Array, values: Array, final_values: Array, *, where: Array | None = None
) -> Array:
    r"""Regret where transitions are deterministic, ``[..., T] -> [...]``: :math:`V^*(s_0) - \sum_t r_t - V^*(s_T)`.

    Args:
      token_rewards: ``[..., T]`` rewards, undiscounted.
      values: ``[..., T]`` optimal value of the states in which the actions were taken.
      final_values: ``[...]`` optimal value of the state after the last step.
      where: ``[..., T]`` real steps.

    >>> print(deterministic_regret(jnp.array([1.0, 0.0]), jnp.array([3.0, 2.0]), jnp.array(1.5)))
    0.5
    """
    check_shapes(token_rewards=token_rewards, values=values, where=where)
    start = jnp.argmax(jnp.ones(values.shape, bool) if where is None else where, -1)
    first = jnp.take_along_axis(numerics.clean(numerics.accumulate(values), where), start[..., None], -1)[..., 0]
    return first - partial_return(token_rewards, where=where) - final_values


def regret_preference(
    q_values: Array,
    values: Array,
    *,
    label: float | Array = labels.hard,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Preferences explained by regret: likelihood under optimal values that are functions of the learnt reward.

    .. math:: P(1 \succ 2) = \sigma(\rho_2 - \rho_1),\quad \rho = \sum_t V^*(s_t) - Q^*(s_t, a_t)

    Unlike the partial return it identifies the reward up to transformations that keep the optimal policy. For
    deterministic transitions, ``bradley_terry_rm(-deterministic_regret(...))`` needs no Q-values.

    Args:
      q_values: ``[..., 2, T]`` optimal value of the actions taken, the preferred segment first.
      values: ``[..., 2, T]`` optimal value of the states; differentiable too.
      label: probability that the first segment is preferred, a number or ``[...]``.
      where: ``[..., 2, T]`` real steps.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the axis before the last is not 2.

    >>> print(f"{regret_preference(jnp.array([[1.0, 1.0], [1.0, 0.0]]), jnp.ones((2, 2))):.4f}")
    0.3133

    References:
      Knox et al., *Models of human preference for learning reward functions*, arXiv:2206.02231.
    """
    return segments(-regret(q_values, values, where=where), label, where, reduce)


def partial_return_preference(
    token_rewards: Array,
    *,
    discount: float = 1.0,
    label: float | Array = labels.hard,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Preferences explained by the sum of rewards, the model that most reinforcement learning from feedback assumes.

    .. math:: P(1 \succ 2) = \sigma\left(\sum_t \gamma^t r^1_t - \sum_t \gamma^t r^2_t\right)

    Args:
      token_rewards: ``[..., 2, T]`` learnt reward of each step, the preferred segment first.
      discount: gamma; 1 in the paper.
      label: probability that the first segment is preferred, a number or ``[...]``.
      where: ``[..., 2, T]`` real steps.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the axis before the last is not 2.

    >>> print(f"{partial_return_preference(jnp.array([[1.0, 1.0], [1.0, 0.0]])):.4f}")
    0.3133

    References:
      Christiano et al., *Deep reinforcement learning from human preferences*, arXiv:1706.03741; arXiv:2206.02231.
    """
    return segments(partial_return(token_rewards, discount=discount, where=where), label, where, reduce)


def segments(score: Array, label: float | Array, where: Array | None, reduce: Reduce | None) -> Array:
    """The loss of pairs of segments by their score ``[..., 2]``; a pair counts when both have a real step."""
    present = None if where is None else where.any(-1)
    check_shapes(score=score, where=present)
    if score.ndim == 0 or score.shape[-1] != 2:
        raise errors.UserError(f"segments have shape {(*score.shape, 'T')}: they want [..., 2, T], preferred first.")
    return compare.pairs(score, label, links.logistic, present, reduce)

"""Several rewards per response: ``[..., K, M]``, M objectives of the K responses to a prompt."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy import advantages
from rlx.types import Array, check_shapes


def combine(rewards: Array, weights: Sequence[float] | Array | None = None) -> Array:
    r"""Weighted sum of objectives, ``[..., M] -> [...]``: :math:`\sum_m w_m r_m`; None weighs all by 1/M.

    >>> print(combine(jnp.array([1.0, 2.0]), (1.0, 0.5)))
    2.0
    """
    rewards = numerics.accumulate(rewards)
    count = rewards.shape[-1]
    weights = jnp.full(count, 1 / count, rewards.dtype) if weights is None else jnp.asarray(weights, rewards.dtype)
    if weights.shape[-1:] != (count,):
        raise errors.UserError(f"weights has shape {weights.shape}: there are {count} objectives.")
    return (rewards * weights).sum(-1)


def multi_objective_grpo(
    objective_rewards: Array,
    *,
    weights: Sequence[float] | Array | None = None,
    per_objective: bool = False,
    ddof: int = 0,
    epsilon: float = 1e-8,
    singleton: str = "raw",
    where: Array | None = None,
) -> Array:
    r"""Group-relative advantage of several rewards: of their weighted sum, or the weighted sum of theirs.

    .. math:: A = z\left(\sum_m w_m r_m\right)\quad\text{or}\quad A = \sum_m w_m z(r_m),\quad
       z(r) = \frac{r - \bar r}{\sigma_r + \epsilon}

    The first form is the paper's (a multi-label reward model, its scores combined). In the second an objective of large
    scale does not drown the others, and one that is constant over the group adds nothing.

    Args:
      objective_rewards: ``[..., K, M]`` reward of the K responses to a prompt under M objectives.
      weights: M numbers; None: 1/M each.
      per_objective: normalise each objective in its group, then combine.
      ddof: 0 for the population's standard deviation, 1 for the unbiased one.
      epsilon: added to the standard deviation.
      singleton: advantage of a response without a group, as in :func:`~rlx.policy.advantages.grpo_advantage`.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``: constants that broadcast over tokens.

    Raises:
      UserError: the number of weights is not that of the objectives, or the shapes disagree.

    >>> print(multi_objective_grpo(jnp.array([[1.0, 0.0], [0.0, 0.0]]))[..., 0])
    [ 1. -1.]

    References:
      Li et al., *Optimizing Safe and Aligned Language Generation: A Multi-Objective GRPO Approach*, arXiv:2503.21819.
    """
    check_shapes(**{"where": where, "objective_rewards of one objective": objective_rewards[..., 0]})
    rewards = jax.lax.stop_gradient(numerics.accumulate(objective_rewards))
    rewards = numerics.clean(rewards, None if where is None else where[..., None])
    options = {"ddof": ddof, "epsilon": epsilon, "singleton": singleton}
    if not per_objective:
        return advantages.group_normalize(combine(rewards, weights), where=where, **options)[..., None]
    each = None if where is None else where[..., None, :]
    normal = advantages.group_normalize(jnp.swapaxes(rewards, -1, -2), where=each, **options)
    return combine(jnp.swapaxes(normal, -1, -2), weights)[..., None]

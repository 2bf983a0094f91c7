"""The policy of MaxMin-RLHF over actions: several rewards, and the group that it serves worst counts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.types import Array, check_positive, check_shapes


class MaxMin(NamedTuple):
    """The policy that does best by the group that it serves worst.

    Attributes:
      policy_logps: ``[..., K]`` log-probabilities.
      group_weights: ``[..., G]`` of the groups; only the worst off have weight.
      objectives: ``[..., G]`` expected reward of each group.
      gap: ``[...]`` by how much the objective may be from its maximum.
      converged: ``[...]`` whether the gap is at most the tolerance.
      steps: taken until all had converged, or were given up.
    """

    policy_logps: Array
    group_weights: Array
    objectives: Array
    gap: Array
    converged: Array
    steps: Array


def maxmin_rlhf(
    group_rewards: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    tolerance: float = 1e-5,
    max_steps: int = 100_000,
) -> MaxMin:
    r"""The MaxMin policy over K actions: best for the worst group, at a price for leaving the reference.

    .. math:: \max_\pi \min_g E_\pi[r_g] - \beta\,KL(\pi\,\|\,\pi_{ref}) =
       \min_{\lambda\in\Delta} \beta\log E_{\pi_{ref}}\left[e^{\sum_g\lambda_g r_g/\beta}\right],\quad
       \pi \propto \pi_{ref}\,e^{\sum_g\lambda_g r_g/\beta}

    Mirror descent on the group weights, :math:`\lambda_g \leftarrow \lambda_g e^{-\eta E_\pi r_g}`, with the step
    :math:`\eta = 16\beta/R^2` that the curvature allows, R the widest range of :math:`r_g - r_h`, until the
    duality gap
    :math:`\sum_g\lambda_g E_\pi r_g - \min_g E_\pi r_g` is at most ``tolerance``, or after ``max_steps``.

    Args:
      group_rewards: ``[..., G, K]`` reward of every action for every group.
      reference_logps: ``[..., K]`` log-probabilities or logits of the reference.
      beta: strength of the KL regularisation, above 0.
      tolerance: on the gap, in units of reward.
      max_steps: at most.

    Raises:
      UserError: beta is not above 0, or the shapes disagree.

    >>> found = maxmin_rlhf(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.log(jnp.array([0.9, 0.1])))
    >>> print(found.objectives.round(3), found.converged)
    [0.5 0.5] True

    References:
      Chakraborty et al., *MaxMin-RLHF: Alignment with Diverse Human Preferences*, arXiv:2402.08925.
    """
    check_positive(beta=beta)
    check_shapes(**{"reference_logps": reference_logps, "rewards of a group": group_rewards[..., 0, :]})
    rewards, reference = numerics.accumulate(group_rewards), numerics.log_softmax(reference_logps)
    apart = rewards[..., :, None, :] - rewards[..., None, :, :]
    widest = (apart.max(-1) - apart.min(-1)).max((-2, -1))
    size = 16 * beta / jnp.square(jnp.maximum(widest, 1e-6))[..., None]

    def at(weights: Array, steps: Array) -> MaxMin:
        policy = numerics.log_softmax(reference + (weights[..., None] * rewards).sum(-2) / beta)
        objectives = (jnp.exp(policy)[..., None, :] * rewards).sum(-1)
        gap = (weights * objectives).sum(-1) - objectives.min(-1)
        return MaxMin(policy, weights, objectives, gap, gap <= tolerance, steps)

    def step(found: MaxMin) -> MaxMin:
        logs = jnp.log(jnp.maximum(found.group_weights, 1e-30))
        return at(numerics.softmax(logs - size * found.objectives), found.steps + 1)

    equal = jnp.full(rewards.shape[:-1], 1 / rewards.shape[-2], rewards.dtype)
    unfinished = lambda found: ~found.converged.all() & (found.steps < max_steps)  # noqa: E731
    return jax.lax.while_loop(unfinished, step, at(equal, jnp.zeros((), jnp.int32)))

"""How strongly a pair is preferred, and losses that use it: pairs on the last axis ``[..., 2]``, chosen first.

The strength is the margin of an ensemble of reward models. Low strengths are mostly wrong labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Reduce, check_pairs, check_shapes


class Strength(NamedTuple):
    """Strength of pairs ``[...]`` under an ensemble: mean and population standard deviation of the margins."""

    mean: Array
    std: Array


def preference_strength(ensemble_rewards: Array, *, where: Array | None = None) -> Strength:
    r"""Mean and spread of the margin of a pair over an ensemble of M reward models; constants.

    .. math:: \mu = \frac1M\sum_m \delta_m,\quad \sigma^2 = \frac1M\sum_m(\delta_m-\mu)^2,\quad
       \delta_m = r_m(y_w) - r_m(y_l)

    The paper trains M = 10 models on the same data in different orders, and cuts the pairs by mean strength.

    Args:
      ensemble_rewards: ``[..., 2, M]`` reward of both responses under each model, chosen first.
      where: ``[..., 2]`` real responses; a pair that is not whole gets 0 in both.

    Raises:
      UserError: the axis before the last is not 2, or the shapes disagree.

    >>> found = preference_strength(jnp.array([[2.0, 4.0], [1.0, 1.0]]))
    >>> print(found.mean, found.std)
    2.0 1.0

    References:
      Wang et al., *Secrets of RLHF in Large Language Models Part II: Reward Modeling*, arXiv:2401.06080.
    """
    if jnp.ndim(ensemble_rewards) < 2 or ensemble_rewards.shape[-2] != 2:
        shape = jnp.shape(ensemble_rewards)
        raise errors.UserError(f"ensemble_rewards has shape {shape}: strengths want [..., 2, M], chosen first.")
    check_pairs(**{"where": where, "ensemble_rewards of one model": ensemble_rewards[..., 0]})
    whole = None if where is None else where.all(-1)[..., None]
    rewards = jax.lax.stop_gradient(numerics.accumulate(ensemble_rewards))
    margins = numerics.clean(rewards[..., 0, :] - rewards[..., 1, :], whole)
    return Strength(numerics.mean(margins, -1), numerics.std(margins, -1))


def secrets_rlhf2(
    rewards: Array,
    strengths: Array,
    preference_probs: Array | None = None,
    *,
    adaptive_margin: bool = True,
    flip_below: float | None = None,
    epsilon: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Reward-model loss that knows how strongly a pair is preferred: adaptive margin, flipped and soft labels.

    .. math:: \ell = q\,f(z) + (1-q)\,f(-z),\quad z = s\,(r_w - r_l - \mu),\quad f = -\log\sigma

    with s = -1 for flipped pairs, else 1, and without :math:`\mu` when the margin is off. A flipped pair asks for
    :math:`|\mu|` where :math:`\mu < 0`. With the margin that a class of strength asks for as :math:`\mu`, it is the
    loss of Llama 2.

    Args:
      rewards: ``[..., 2]`` reward of the responses, chosen first.
      strengths: ``[...]`` strength :math:`\mu` of the pair (:func:`preference_strength`), or the margin asked.
      preference_probs: ``[...]`` probability q that the label, after flipping, is right; None takes ``epsilon``.
      adaptive_margin: subtract the strength from the difference of the rewards.
      flip_below: flip the labels of pairs of less strength than this; 0 flips where the ensemble disagrees with the
        label, the paper takes the 0.2-quantile of the data set.
      epsilon: label smoothing in the place of ``preference_probs``, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the shapes disagree.

    >>> print(f"{secrets_rlhf2(jnp.array([0.0, 1.0]), jnp.array(-1.0), adaptive_margin=False, flip_below=0.0):.4f}")
    0.3133

    References:
      Wang et al., *Secrets of RLHF in Large Language Models Part II: Reward Modeling*, arXiv:2401.06080;
      margin by class: Touvron et al., *Llama 2*, arXiv:2307.09288.
    """
    check_pairs(rewards=rewards, where=where)
    strength = jax.lax.stop_gradient(numerics.accumulate(strengths))
    z = scores.margin(numerics.accumulate(rewards))
    z = compare.beyond(z, strength) if adaptive_margin else z
    z = z if flip_below is None else jnp.where(strength < flip_below, -z, z)
    label = labels.smoothed(epsilon) if preference_probs is None else labels.soft(preference_probs)
    return compare.margins(z, label, links.logistic, compare.pair_where(where), reduce)


def metarm_difference(rewards: Array, *, where: Array | None = None, reduce: Reduce | None = mean) -> Array:
    r"""MetaRM's difference objective: how well a reward model tells the policy's own responses apart.

    .. math:: J = \frac{2}{k^2}\sum_{i<j}\sigma(|r_i - r_j|)

    It is to be **maximised**, by the inner step of :func:`metarm_gradient`.

    Args:
      rewards: ``[..., K]`` rewards of k responses of the current policy to a prompt.
      where: ``[..., K]`` real responses.
      reduce: how prompts become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{metarm_difference(jnp.array([3.0, 3.0])):.2f}")
    0.25

    References:
      Dou et al., *MetaRM: Shifted Distributions Alignment via Meta-Learning*, arXiv:2405.00438.
    """
    check_shapes(rewards=rewards, where=where)
    rewards = numerics.clean(numerics.accumulate(rewards), where)
    difference = rewards[..., :, None] - rewards[..., None, :]
    distinct = ~jnp.eye(rewards.shape[-1], dtype=bool)
    both = distinct if where is None else distinct & where[..., :, None] & where[..., None, :]
    # the sign keeps the slope at a tie 0, as the objective is flat to first order for neither side
    told = jax.nn.sigmoid(difference * jnp.sign(difference))
    members = numerics.count(where, rewards, -1)
    objective = numerics.safe_divide(numerics.sum(told, (-2, -1), where=both), jnp.square(members))
    return aggregate.finish(objective, compare.list_where(where), reduce)


def metarm_gradient(
    loss: Callable[[Any], Array], difference: Callable[[Any], Array], *, eta: float
) -> Callable[[Any], tuple[Array, Any]]:
    r"""MetaRM's step: the gradient of a loss at parameters that first climbed the difference objective.

    .. math:: \theta' = \theta + \eta\nabla J(\theta),\qquad g = \nabla\ell(\theta')

    The gradient is for :math:`\theta` itself; the step to :math:`\theta'` is not differentiated.

    Args:
      loss: parameters -> preference loss.
      difference: parameters -> :func:`metarm_difference` of their rewards.
      eta: size of the inner step.

    Returns:
      Parameters -> (loss, gradient), as ``jax.value_and_grad`` gives them.

    >>> step = metarm_gradient(lambda x: x**2, lambda x: 3 * x, eta=1.0)
    >>> print(*step(1.0))
    16.0 8.0
    """

    def value_and_grad(params: Any) -> tuple[Array, Any]:
        ascent = jax.grad(difference)(params)
        return jax.value_and_grad(loss)(jax.tree.map(lambda p, g: p + eta * g, params, ascent))

    return value_and_grad

"""Agreement of the answers to a prompt: their entropy, and advantages that it weighs.

Responses to a prompt stand on the axis K. ``answers [..., K]`` numbers the final answer (or the cluster of meaning) of
a response: only equality counts. All are constants.
"""

from collections.abc import Callable

import jax.numpy as jnp

from rlx import numerics
from rlx.policy.advantages import grpo_advantage
from rlx.types import Array, check_shapes


def answer_share(answers: Array, where: Array | None = None) -> Array:
    """Share of the responses of a group that give the same answer, ``[..., K]``; 0 where masked.

    >>> print(answer_share(jnp.array([7, 7, 2, 7])))
    [0.75 0.75 0.25 0.75]
    """
    answers = jnp.asarray(answers)
    same = numerics.accumulate(answers[..., :, None] == answers[..., None, :])
    return numerics.clean(numerics.mean(same, -1, where=None if where is None else where[..., None, :]), where)


def answer_entropy(answers: Array, *, per_cluster: bool = False, where: Array | None = None) -> Array:
    r"""Entropy of the answers of a group, :math:`-\sum_c p_c \log p_c` in nats, with p their shares.

    Args:
      answers: ``[..., K]`` int.
      per_cluster: True is the average over distinct answers instead, :math:`-\frac1C\sum_c\log p_c`; only the first
        form has the maximum log K.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., 1]``, a constant; 0 of a group without responses.

    Raises:
      UserError: the shapes disagree.

    >>> print(answer_entropy(jnp.array([7, 7, 2, 2])) / jnp.log(2))
    [1.]
    """
    check_shapes(answers=answers, where=where)
    share = answer_share(answers, where)
    # a sum over distinct answers is a sum over responses, each with its part of the answer
    weight = numerics.safe_divide(jnp.ones_like(share), share) if per_cluster else (share > 0).astype(share.dtype)
    surprise = -jnp.log(jnp.where(share > 0, share, 1))
    total = numerics.sum(weight * surprise, -1, where=where, keepdims=True)
    return numerics.safe_divide(total, numerics.sum(weight, -1, where=where, keepdims=True))


def linear(x: Array) -> Array:
    """``1 - x``."""
    return 1 - x


def exponential(x: Array) -> Array:
    """``exp(-x)``."""
    return jnp.exp(-x)


def seed_grpo(
    rewards: Array,
    answers: Array,
    *,
    alpha: float = 1.0,
    modulation: Callable[[Array], Array] = linear,
    where: Array | None = None,
) -> Array:
    r"""Semantic-entropy-enhanced GRPO: Dr. GRPO's advantage, smaller for prompts whose answers disagree.

    .. math:: A_i = (r_i - \bar r)\,f\!\left(\alpha\,\frac{H}{\log n}\right)

    with H the entropy of the answers of the n responses. The form of f and the value of alpha are those of summaries of
    the paper, not of its authors' code.

    Args:
      rewards: ``[..., K]`` one reward per response.
      answers: ``[..., K]`` int: equal for responses of one meaning.
      alpha: how much disagreement counts.
      modulation: f, ``linear`` (1 - x) or ``exponential`` (e^-x), or any function of x.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: the shapes disagree.

    >>> print(seed_grpo(jnp.array([1.0, 0.0]), jnp.array([3, 4]), alpha=0.5)[:, 0])
    [ 0.25 -0.25]

    References:
      Chen et al., *SEED-GRPO: Semantic Entropy Enhanced GRPO for Uncertainty-Aware Policy Optimization*,
      arXiv:2505.12346.
    """
    check_shapes(rewards=rewards, answers=answers, where=where)
    uncertainty = normalised_entropy(answers, where)
    scale = modulation(alpha * uncertainty)
    return grpo_advantage(rewards, scale=False, where=where) * scale[..., None]


def normalised_entropy(answers: Array, where: Array | None = None) -> Array:
    r"""Entropy of the answers over its maximum, :math:`H/\log n`, ``[..., 1]``; 0 of a single response.

    >>> print(normalised_entropy(jnp.array([1, 2, 3])))
    [1.]
    """
    entropy = answer_entropy(answers, where=where)
    n = numerics.count(where, jnp.broadcast_to(entropy, jnp.shape(answers)), -1, keepdims=True)
    return numerics.safe_divide(entropy, jnp.log(jnp.maximum(n, 1)))

"""Rewards by the entropy of a response: of its phases, and by the difficulty of its prompt. All are constants.

Responses stand on the axis K, those to one prompt together; tokens, where there are any, on the last axis T.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


class Phases(NamedTuple):
    """Mean token entropy of the thinking and of the answer, ``[..., K]`` nats; 0 where a phase is empty."""

    thinking: Array
    answer: Array


def phase_entropies(entropy: Array, think_ends: Array, *, where: Array | None = None) -> Phases:
    """Mean entropies before and after the token that ends the thinking, which counts in neither.

    Args:
      entropy: ``[..., K, T]`` nats.
      think_ends: ``[..., K]`` index of that token on the axis T; negative where there is none: all is thinking.
      where: ``[..., K, T]`` response tokens.

    >>> print(*phase_entropies(jnp.array([1.0, 9.0, 2.0, 4.0]), jnp.array(1)))
    1.0 3.0
    """
    ends, position = jnp.asarray(think_ends)[..., None], jnp.arange(entropy.shape[-1])
    valid = jnp.ones(entropy.shape, bool) if where is None else where
    thinking = numerics.mean(constant(entropy, where), -1, where=valid & ((ends < 0) | (position < ends)))
    return Phases(thinking, numerics.mean(constant(entropy, where), -1, where=valid & (ends >= 0) & (position > ends)))


def pear(
    entropy: Array,
    correct: Array,
    think_ends: Array,
    *,
    alpha: float = 1.0,
    score: float = 1.0,
    format_score: float = 0.0,
    where: Array | None = None,
) -> Array:
    r"""PEAR's reward: a right response loses what its thinking is more uncertain than its answer.

    .. math:: r = \min\left(1,\; s - [\bar H_{think} - \alpha \bar H_{answer}]_+\right)\ \text{if right},\quad
       r_{fmt}\ \text{if wrong}

    Args:
      entropy: ``[..., K, T]`` token entropies of the policy that sampled (nats).
      correct: ``[..., K]`` 1 for a right response, 0 for a wrong one.
      think_ends: ``[..., K]`` index of the token that closes the thinking; negative where there is none.
      alpha: weight of the answer's entropy.
      score: s, reward of a right response.
      format_score: r_fmt, reward of a wrong one.
      where: ``[..., K, T]`` response tokens.

    Returns:
      ``[..., K]`` rewards for :func:`~rlx.policy.advantages.grpo_advantage`. There is no lower bound.

    Raises:
      UserError: the shapes disagree.

    >>> print(pear(jnp.array([[1.0, 9.0, 0.5]]), jnp.array([1]), jnp.array([1])))
    [0.5]

    References:
      *PEAR: Phase Entropy Aware Reward for Efficient Reasoning*, arXiv:2510.08026.
    """
    check_shapes(entropy=entropy, where=where)
    check_shapes(correct=correct, think_ends=think_ends, **{"entropy without its last axis": entropy[..., 0]})
    phases = phase_entropies(entropy, think_ends, where=where)
    penalty = jnp.maximum(phases.thinking - alpha * phases.answer, 0)
    return jnp.where(correct > 0.5, jnp.minimum(score - penalty, 1), format_score)


def difficulty(correct: Array, *, where: Array | None = None) -> Array:
    """ARES's difficulty of a prompt by the share of right responses: 0 easy (2/3 or more), 1 medium (1/3), 2 hard.

    Args:
      correct: ``[..., K]`` 1 for a right response, 0 for a wrong one.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., 1]`` int32: broadcasts over the responses.

    >>> print(difficulty(jnp.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]]))[:, 0])
    [0 1 2]
    """
    right = numerics.sum(constant(correct) > 0.5, -1, where=where, keepdims=True)
    count = numerics.count(where, right + constant(correct), -1, keepdims=True)
    # in whole numbers, so that two of three are two thirds
    return 2 - (3 * right >= count).astype(jnp.int32) - (3 * right >= 2 * count)


Levels = Sequence[float]


def ares_entropy_reward(
    high_entropy_counts: Array,
    correct: Array,
    difficulty: Array,
    *,
    target: float | Array = 10.0,
    alpha: float | Array = 0.5,
    margin_fraction: Levels = (0.15, 0.25, 0.35),
    kappa: Levels = (2.0, 3.0, 4.0),
    temperature: Levels = (2.0, 2.5, 3.0),
    cap_scale: Levels = (1.0, 1.0, 1.2),
    consolation: Levels = (0.6, 0.8, 1.0),
    where: Array | None = None,
) -> Array:
    r"""ARES's reward of how much a response explores, by the difficulty of its prompt.

    With :math:`\delta = n - n^*`, margin :math:`m = \max(1, f \max(n^*, 1))`, cap :math:`c = \alpha\,s`, h Huber's
    function with knee :math:`\kappa` and :math:`\sigma_T(x) = 1/(1 + e^{-x/T})`:

    .. math:: r = \begin{cases}
       -\min(c,\, c\,h([\delta - m]_+)/(m + \kappa)) & \text{easy, right}\\
       -\min(c,\, c\,h([|\delta| - m]_+)/(m + \kappa)) & \text{medium, right}\\
       c\,\sigma_T(\delta + m) & \text{hard, right},\ \delta \ge -m\\
       -\min(c,\, c\,h(-\delta - m)/(2(m + \kappa))) & \text{hard, right},\ \delta < -m\\
       c\,b\,\sigma_T([\delta - m]_+) & \text{wrong}
       \end{cases}

    Args:
      high_entropy_counts: ``[..., K]`` n, tokens of the response in windows of high entropy.
      correct: ``[..., K]`` 1 for a right response, 0 for a wrong one.
      difficulty: ``[..., K]`` or ``[..., 1]`` 0 easy, 1 medium, 2 hard (:func:`difficulty`).
      target: n*, broadcasts: the rounded mean count of the prompts of that difficulty.
      alpha: size of the reward, broadcasts: adapted per difficulty, in [0, 2].
      margin_fraction: f, for easy, medium and hard, as all that follow.
      kappa: knee of Huber's function.
      temperature: T.
      cap_scale: s.
      consolation: b, what a wrong response gets of the cap.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K]``; add it to the accuracy.

    Raises:
      UserError: the shapes disagree.

    >>> counts, correct, level = jnp.array([25, 10]), jnp.array([1, 1]), jnp.array([0, 0])
    >>> print(ares_entropy_reward(counts, correct, level))
    [-0.5 -0. ]

    References:
      *ARES: Multimodal Adaptive Reasoning via Difficulty-Aware Token-Level Entropy Shaping*, arXiv:2510.08457.
    """
    check_shapes(high_entropy_counts=high_entropy_counts, correct=correct, difficulty=difficulty, where=where)
    delta = constant(high_entropy_counts, where) - target
    levels = (margin_fraction, kappa, temperature, cap_scale, consolation)
    fraction, knee, heat, scale, solace = (jnp.asarray(x, delta.dtype)[jnp.asarray(difficulty)] for x in levels)
    margin, cap = jnp.maximum(1, fraction * jnp.maximum(target, 1)), alpha * scale
    over = jnp.maximum(delta - margin, 0)

    def penalty(x: Array) -> Array:
        huber = jnp.where(x <= knee, jnp.square(x) / (2 * knee), x - knee / 2)
        return huber / (margin + knee) * cap

    outside = jnp.where(difficulty == 1, jnp.maximum(jnp.abs(delta) - margin, 0), over)
    short = -jnp.minimum(cap, 0.5 * penalty(-delta - margin))
    explored = jnp.where(delta >= -margin, jax.nn.sigmoid((delta + margin) / heat) * cap, short)
    right = jnp.where(difficulty == 2, explored, -jnp.minimum(cap, penalty(outside)))
    wrong = jax.nn.sigmoid(over / heat) * cap * solace
    return numerics.clean(jnp.where(correct > 0.5, right, wrong), where)

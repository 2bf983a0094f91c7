"""Terms of a reward beside correctness: length, overlong responses, critiques.

Responses stand on the last axis ``[..., K]``, those to one prompt together; ``where [..., K]`` marks real ones. All are
constants. Add them up as the paper of each says, then take advantages (:mod:`rlx.policy.advantages`).
"""

from collections.abc import Callable

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy.weights import constant
from rlx.types import Array, check_positive, check_shapes


def dapo_overlong_penalty(
    lengths: Array,
    *,
    max_length: float = 20480,
    buffer_length: float = 4096,
    factor: float = 1.0,
    floor: float = -1.0,
    where: Array | None = None,
) -> Array:
    r"""DAPO's soft punishment of responses that come near the length limit.

    .. math:: f\,\mathrm{clip}\Big(\frac{(L - C) - |y|}{C},\; -1,\; 0\Big)

    Args:
      lengths: ``[..., K]`` response tokens.
      max_length: L, the limit.
      buffer_length: C, how many tokens before it the punishment begins.
      factor: f.
      floor: the lowest value before the factor: -1 in the paper; verl has none (``-inf``).
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K]``, never above 0; add it to the reward.

    Raises:
      UserError: ``buffer_length`` is not above 0, or the shapes disagree.

    >>> print(dapo_overlong_penalty(jnp.array([70, 90, 200]), max_length=100, buffer_length=20))
    [ 0.  -0.5 -1. ]

    References:
      Yu et al., *DAPO: An Open-Source LLM Reinforcement Learning System at Scale*, arXiv:2503.14476.
    """
    check_shapes(lengths=lengths, where=where)
    check_positive(buffer_length=buffer_length)
    left = (max_length - buffer_length - constant(lengths, where)) / buffer_length
    return numerics.clean(factor * jnp.clip(left, floor, 0), where)


def kimi_length_reward(lengths: Array, correct: Array, *, where: Array | None = None) -> Array:
    r"""Kimi k1.5's length reward: short for the group is good, but never a reward for a wrong response.

    .. math:: \lambda_i = \frac12 - \frac{|y_i| - \min_j |y_j|}{\max_j |y_j| - \min_j |y_j|},\qquad
       r_i = \lambda_i\ \text{if right},\quad \min(0, \lambda_i)\ \text{if wrong}

    Args:
      lengths: ``[..., K]`` tokens of the responses to a prompt.
      correct: ``[..., K]`` 1 for a right response, 0 for a wrong one.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K]`` in [-1/2, 1/2], 0 where all are equally long; add it with a weight, after a warm-up without it.

    Raises:
      UserError: the shapes disagree.

    >>> print(kimi_length_reward(jnp.array([10, 20, 10, 20]), jnp.array([1, 1, 0, 0])))
    [ 0.5 -0.5  0.  -0.5]

    References:
      Kimi Team, *Kimi k1.5: Scaling Reinforcement Learning with LLMs*, arXiv:2501.12599.
    """
    check_shapes(lengths=lengths, correct=correct, where=where)
    lengths = constant(lengths)
    shortest = numerics.clean(lengths, where, jnp.inf).min(-1, keepdims=True)
    spread = numerics.clean(lengths, where, -jnp.inf).max(-1, keepdims=True) - shortest
    place = jnp.where(spread > 0, 0.5 - (lengths - shortest) / jnp.where(spread > 0, spread, 1), 0)
    return numerics.clean(jnp.where(correct > 0.5, place, jnp.minimum(place, 0)), where)


def l1_length_reward(
    lengths: Array,
    target_lengths: Array,
    correct: Array,
    *,
    maximum: bool = False,
    alpha: float = 3e-4,
    delta: float = 0.5,
    where: Array | None = None,
) -> Array:
    r"""L1's reward of responses that were asked to have a length.

    .. math:: \mathbb 1[\text{right}] - \alpha\,|n^* - |y||\ \text{(exact)},\qquad
       \mathbb 1[\text{right}]\;\mathrm{clip}(\alpha\,(n^* - |y|) + \delta,\, 0,\, 1)\ \text{(maximum)}

    Args:
      lengths: ``[..., K]`` response tokens.
      target_lengths: ``[..., K]`` or ``[..., 1]`` n*, the length that was asked for.
      correct: ``[..., K]`` 1 for a right response, 0 for a wrong one.
      maximum: n* is the most that is allowed (LCPO-Max), not the length itself (LCPO-Exact).
      alpha: price of a token.
      delta: reward of a right response of just n* tokens, under ``maximum``.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K]``, the whole reward.

    Raises:
      UserError: the shapes disagree.

    >>> print(l1_length_reward(jnp.array([900, 1000]), jnp.array([1000]), jnp.array([1, 0]), alpha=0.001))
    [0.9 0. ]

    References:
      Aggarwal and Welleck, *L1: Controlling How Long A Reasoning Model Thinks With Reinforcement Learning*,
      arXiv:2503.04697.
    """
    check_shapes(lengths=lengths, target_lengths=target_lengths, correct=correct, where=where)
    left = constant(target_lengths) - constant(lengths)
    right = jnp.where(correct > 0.5, 1, jnp.zeros_like(left))
    reward = right * jnp.clip(alpha * left + delta, 0, 1) if maximum else right - alpha * jnp.abs(left)
    return numerics.clean(reward, where)


REFINEMENTS: dict[str, Callable[[Array, Array], Array]] = {
    "refined": lambda before, after: after,
    "improvement": lambda before, after: after - before,
    "correction": lambda before, after: after * jnp.where(before > 0.5, 0.2, 1.0),
    "none": lambda before, after: jnp.zeros_like(after),
}
"""Of the answer before and after the critique, 0 or 1: what the refinement is worth. ``none`` is the first stage."""


def critique_rl_reward(
    correct: Array,
    judged_correct: Array,
    refined_correct: Array,
    *,
    refinement: str = "refined",
    beta1: float = 0.2,
    wrong: float | None = None,
    where: Array | None = None,
) -> Array:
    r"""Critique-RL's reward of a critique: the answer refined by it is right, and its judgement was.

    .. math:: r = s(y, y') + \beta_1\,\mathbb 1[\text{judgement of } y = \text{truth}]

    The first stage trains the judgement alone: ``refinement="none", beta1=1``. The released code punishes a wrong
    judgement: ``wrong=-1`` takes the place of the sum.

    Args:
      correct: ``[..., K]`` 1 where the answer that is criticised was right, 0 where wrong.
      judged_correct: ``[..., K]`` 1 where the critique calls it right, 0 where wrong. (A critique that says neither is
        to count as wrong: give it 1 - ``correct``.)
      refined_correct: ``[..., K]`` 1 where the refined answer is right.
      refinement: s: ``refined``, ``improvement``, ``correction`` or ``none`` (:data:`REFINEMENTS`).
      beta1: weight of a right judgement.
      wrong: the whole reward of a critique that judges wrongly; None: s alone.
      where: ``[..., K]`` real critiques.

    Returns:
      ``[..., K]``; the KL terms are separate.

    Raises:
      UserError: unknown ``refinement``, or the shapes disagree.

    >>> print(critique_rl_reward(jnp.array([1, 1, 0]), jnp.array([1, 0, 0]), jnp.array([1, 1, 0])))
    [1.2 1.  0.2]

    References:
      Xi et al., *Critique-RL: Training Language Models for Critiquing through Two-Stage Reinforcement Learning*,
      arXiv:2510.24320.
    """
    check_shapes(correct=correct, judged_correct=judged_correct, refined_correct=refined_correct, where=where)
    if refinement not in REFINEMENTS:
        hint = errors.close_matches(refinement, REFINEMENTS)
        raise errors.UserError(f"Unknown refinement {refinement!r}.{hint} Known: {', '.join(REFINEMENTS)}.")
    before, judged, after = (
        (constant(x, where) > 0.5).astype(numerics.accumulate(x).dtype)
        for x in (correct, judged_correct, refined_correct)
    )
    score = REFINEMENTS[refinement](before, after)
    return numerics.clean(jnp.where(judged == before, score + beta1, score if wrong is None else wrong), where)

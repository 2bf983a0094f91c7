"""Advantages of groups within groups: steps at the same state, turns of the same number, segments of a response.

Responses or trajectories of a prompt stand on the axis K, their steps on S or their tokens on T; leading axes are the
batch. All are constants: no gradient flows.
"""

import difflib
from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rlx import errors, numerics
from rlx.policy import advantages, segments
from rlx.policy.returns import reward_to_go
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def gigpo_advantage(
    step_rewards: Array,
    state_ids: Array,
    rewards: Array | None = None,
    *,
    gamma: float = 0.95,
    weight: float = 1.0,
    scale: bool = False,
    epsilon: float = 1e-6,
    over_steps: bool = False,
    where: Array | None = None,
) -> Array:
    r"""Group in group: the whole trajectory against the others, and every step against steps from the same state.

    .. math:: A = \frac{R - \bar R}{F} + w\,\frac{G_t - \overline{G}_{s_t}}{F},\qquad G_t = r_t + \gamma G_{t+1}

    with F = 1, or the unbiased standard deviation + epsilon of the same group.

    Args:
      step_rewards: ``[..., K, S]`` reward of a step in the environment, the trajectories of a task on K.
      state_ids: ``[..., K, S]`` int; equal numbers within a task are the same anchor state (:func:`anchor_states`).
      rewards: ``[..., K]`` reward of the trajectory; None for the sum of its steps.
      gamma: discount of the step returns.
      weight: w, of the advantage of the step.
      scale: divide by the standard deviation (``mean_std_norm``); False is ``mean_norm``.
      epsilon: added to the standard deviation.
      over_steps: take the mean of the trajectories over their steps, so that long ones weigh more (the released
        code); False takes it over trajectories (the paper).
      where: ``[..., K, S]`` real steps.

    Returns:
      ``[..., K, S, 1]``: broadcasts over the tokens of a step. A trajectory without a group keeps its reward; a state
      met once has no step advantage.

    Raises:
      UserError: the shapes disagree.

    >>> print(gigpo_advantage(jnp.array([[0.0, 1.0], [0.0, 0.0]]), jnp.array([[0, 1], [0, 2]]), gamma=1.0)[..., 0])
    [[ 1.   0.5]
     [-1.  -0.5]]

    References:
      Feng et al., *Group-in-Group Policy Optimization for LLM Agent Training*, arXiv:2505.10978.
    """
    check_shapes(step_rewards=step_rewards, state_ids=state_ids, where=where)
    real = jnp.broadcast_to(True if where is None else where, step_rewards.shape)
    flat = (*step_rewards.shape[:-2], -1)
    totals = numerics.sum(constant(step_rewards, real), -1) if rewards is None else rewards
    options = {"scale": scale, "epsilon": epsilon}
    episode = jnp.broadcast_to(totals[..., None], real.shape)
    if over_steps:
        episode = advantages.group_normalize(episode.reshape(flat), where=real.reshape(flat), **options)
    else:
        episode = advantages.group_normalize(totals, where=real.any(-1), **options)[..., None]
    episode = jnp.broadcast_to(episode.reshape(*real.shape[:-1], -1), real.shape)
    returns = reward_to_go(step_rewards, gamma=gamma, where=real)
    step = segments.normalize(returns.reshape(flat), state_ids.reshape(flat), where=real.reshape(flat), **options)
    return numerics.clean(episode + weight * step.reshape(real.shape), real)[..., None]


def anchor_states(trajectories: Sequence[Sequence[Hashable]], *, similarity: float = 1.0) -> np.ndarray:
    """Numbers the observations that a task's trajectories meet: equal ones alike, padded to ``[K, S]`` with -1.

    Args:
      trajectories: the observations of every trajectory, in order. Ragged.
      similarity: below 1, texts are also the same state when difflib's ratio to the first text of the state reaches
        it (0.95 in the released code); the first state that does takes the text.

    Raises:
      UserError: ``similarity`` is outside (0, 1], or below 1 for observations that are not text.

    >>> print(anchor_states([["hall", "kitchen"], ["hall"]]))
    [[ 0  1]
     [ 0 -1]]
    """
    if not 0 < similarity <= 1:
        raise errors.UserError(f"similarity must be in (0, 1], got {similarity}.")
    known: dict[Hashable, int] = {}
    numbers = np.full((len(trajectories), max(map(len, trajectories), default=0)), -1, np.int32)
    for row, trajectory in enumerate(trajectories):
        for column, observation in enumerate(trajectory):
            numbers[row, column] = _anchor(observation, known, similarity)
    return numbers


def _anchor(observation: Hashable, known: dict[Hashable, int], similarity: float) -> int:
    """The number of the state that an observation belongs to; a new one is added to ``known``."""
    if similarity == 1:
        return known.setdefault(observation, len(known))
    if not isinstance(observation, str):
        raise errors.UserError(f"similarity below 1 compares texts, got a {type(observation).__name__}.")
    for text, number in known.items():
        if difflib.SequenceMatcher(None, observation, str(text)).ratio() >= similarity:
            return number
    return known.setdefault(observation, len(known))


def matchtir_advantage(
    token_rewards: Array,
    turn_ids: Array,
    *,
    gamma: float = 0.9,
    epsilon: float = 1e-6,
    average: bool = False,
    where: Array | None = None,
) -> Array:
    r"""Two levels: the whole response against the others, and every turn against the turns of the same number.

    .. math:: A = \frac{R - \bar R}{\sigma_R + \epsilon} + \frac{G_j - \bar G_j}{\sigma_{G_j} + \epsilon},\qquad
       G_j = r_j + \gamma G_{j+1}

    Args:
      token_rewards: ``[..., K, T]`` reward given at a token; those of a turn are added up.
      turn_ids: ``[..., K, T]`` int, 0 for the tokens of the first turn, 1 of the second, ...; below T.
      gamma: discount a turn.
      epsilon: added to the standard deviations (unbiased).
      average: half of the sum (the released code).
      where: ``[..., K, T]`` tokens that the policy wrote.

    Returns:
      ``[..., K, T]``. A response without a group, and a turn that no other response has, keep their reward.

    Raises:
      UserError: the shapes disagree.

    >>> rewards, turns = jnp.array([[0.0, 1.0], [0.0, 0.0]]), jnp.array([[0, 1], [0, 1]])
    >>> print(matchtir_advantage(rewards, turns, epsilon=0.0))
    [[ 1.4142135  1.4142135]
     [-1.4142135 -1.4142135]]

    References:
      *MatchTIR: Fine-Grained Supervision for Tool-Integrated Reasoning via Bipartite Matching*, arXiv:2601.10712.
    """
    check_shapes(token_rewards=token_rewards, turn_ids=turn_ids, where=where)
    real = jnp.broadcast_to(True if where is None else where, token_rewards.shape)
    rewards, turns = constant(token_rewards, real), token_rewards.shape[-1]
    whole = advantages.group_normalize(rewards.sum(-1), epsilon=epsilon, where=real.any(-1))
    exists = segments.total(jnp.ones_like(rewards), turn_ids, turns, where=real) > 0
    returns = reward_to_go(segments.total(rewards, turn_ids, turns, where=real), gamma=gamma)
    across = returns.swapaxes(-1, -2), exists.swapaxes(-1, -2)
    turn = advantages.group_normalize(across[0], epsilon=epsilon, where=across[1]).swapaxes(-1, -2)
    both = whole[..., None] + segments.spread(turn, turn_ids)
    return numerics.clean(both / 2 if average else both, real)


def spo_starts(old_logprobs: Array, *, threshold: float = 0.9, interval: int = 5, where: Array | None = None) -> Array:
    """Tokens that begin a segment of SPO's chain: every ``interval``-th one that is less likely than ``threshold``.

    The value of the state before such a token (SPO: cut point t - 1) is what :func:`spo_chain_advantage` reads.

    Args:
      old_logprobs: ``[..., T]`` nats, under the policy that sampled.
      threshold: probability below which a token is a cut point.
      interval: take every so many cut points.
      where: ``[..., T]`` real tokens.

    Returns:
      ``[..., T]`` bool.

    Raises:
      UserError: ``interval`` is below 1, or the shapes disagree.

    >>> print(spo_starts(jnp.log(jnp.array([0.5, 0.95, 0.5, 0.5])), interval=2))
    [ True False False  True]
    """
    check_shapes(old_logprobs=old_logprobs, where=where)
    if interval < 1:
        raise errors.UserError(f"interval counts cut points and must be at least 1, got {interval}.")
    unlikely = numerics.clean(constant(old_logprobs) < float(np.log(threshold)), where, False)
    return unlikely & ((jnp.cumsum(unlikely, -1) - 1) % interval == 0)


def spo_chain_advantage(
    old_logprobs: Array,
    values: Array,
    rewards: Array,
    *,
    threshold: float = 0.9,
    interval: int = 5,
    where: Array | None = None,
) -> Array:
    r"""Advantage of a segment of a response: the value of the state after it less that of the state before it.

    .. math:: A_t = V(\text{next cut after } t) - V(\text{last cut before } t)

    where the response's reward is the value after its last token. Tokens before the first cut have no baseline, and
    tokens above the threshold are taken for certain: both have 0.

    Args:
      old_logprobs: ``[..., K, T]`` nats, under the policy that sampled.
      values: ``[..., K, T]`` value of the state a token is chosen in (SPO: the mean of 9 rollouts from there); read
        only where :func:`spo_starts` is True.
      rewards: ``[..., K]`` of the whole response.
      threshold: probability below which a token may begin a segment, and above which it has no advantage.
      interval: cut points per segment.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``[..., K, T]``, 0 where masked.

    Raises:
      UserError: ``interval`` is below 1, or the shapes disagree.

    >>> logprobs = jnp.log(jnp.array([[0.95, 0.5, 0.7, 0.95]]))
    >>> print(spo_chain_advantage(logprobs, jnp.array([[0.0, 0.25, 0.5, 0.0]]), jnp.array([1.0]), interval=1))
    [[0.   0.25 0.5  0.  ]]

    References:
      Guo et al., *Segment Policy Optimization*, arXiv:2505.23564.
    """
    check_shapes(old_logprobs=old_logprobs, values=values, rewards=rewards[..., None], where=where)
    starts = spo_starts(old_logprobs, threshold=threshold, interval=interval, where=where)
    size = starts.shape[-1]
    place = jnp.arange(size)
    last = jax.lax.cummax(jnp.where(starts, place, -1), axis=starts.ndim - 1)
    following = jax.lax.cummin(jnp.where(starts, place, size), axis=starts.ndim - 1, reverse=True)
    following = jnp.concatenate([following[..., 1:], jnp.full_like(following[..., :1], size)], -1)
    final = constant(rewards)[..., None]
    state_values = jnp.concatenate([constant(values, starts), final.astype(numerics.accumulate(values).dtype)], -1)
    gain = jnp.take_along_axis(state_values, following, -1) - segments.spread(state_values, last)
    certain = constant(old_logprobs) > float(np.log(threshold))
    return numerics.clean(jnp.where((last < 0) | certain, 0, gain), where)

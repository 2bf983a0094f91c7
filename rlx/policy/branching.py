"""Where a rollout tree branches: at the tokens or steps a policy was least sure of. No gradient flows.

Positions are integers, -1 where there is none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def largest(x: Array, count: int, *, where: Array | None = None) -> Array:
    """Positions of the ``count`` largest selected entries of the last axis, in that order; ties by position.

    >>> print(largest(jnp.array([1.0, 3.0, 3.0, 9.0]), 4, where=jnp.array([True, True, True, False])))
    [ 1  2  0 -1]
    """
    where = jnp.ones(x.shape, bool) if where is None else where
    # an entry of -inf that is selected still comes before one that is not
    order = jnp.lexsort((-jnp.where(where, x, -jnp.inf), ~where))[..., :count]
    found = jnp.where(jnp.take_along_axis(where, order, -1), order, -1).astype(jnp.int32)
    missing = [(0, 0)] * (found.ndim - 1) + [(0, max(count - x.shape[-1], 0))]
    return jnp.pad(found, missing, constant_values=-1)


class Forks(NamedTuple):
    """Fork points of a group of sampled responses.

    Attributes:
      positions: ``[..., K, num_forks]`` int32 tokens by falling entropy, -1 where a response has too few.
      rollouts: ``[...]`` int32 leaves of all K trees: the K responses and ``num_branches`` from every fork.
    """

    positions: Array
    rollouts: Array


def etmr_fork_positions(
    entropy: Array, *, num_forks: int = 3, num_branches: int = 2, where: Array | None = None
) -> Forks:
    r"""Entropy-fork tree majority rollout: every response forks at its N tokens of largest entropy.

    .. math:: \text{leaves} = M\,(1 + B N)

    The leaves vote (:func:`rlx.ttrl_majority_reward`) for about 60% of the tokens of as many whole responses. The paper
    does not say whether the token at a fork is drawn again, nor whether forks keep a distance.

    Args:
      entropy: ``[..., K, T]`` nats; a complete response per tree (M of them) on K.
      num_forks: N, forks per tree.
      num_branches: B, new continuations per fork.
      where: ``[..., K, T]`` response tokens.

    Raises:
      UserError: a count is below 1, or the shapes disagree.

    >>> print(etmr_fork_positions(jnp.array([[0.1, 0.9, 0.5]]), num_forks=2))
    Forks(positions=Array([[1, 2]], dtype=int32), rollouts=Array(5, dtype=int32))

    References:
      *ETTRL: Balancing Exploration and Exploitation in LLM Test-Time Reinforcement Learning via Entropy Mechanism*,
      arXiv:2508.11356.
    """
    check_shapes(entropy=entropy, where=where)
    _check_counts(num_forks=num_forks, num_branches=num_branches)
    positions = largest(constant(entropy, where), num_forks, where=where)
    forks = (positions >= 0).sum((-1, -2), dtype=jnp.int32)
    return Forks(positions, entropy.shape[-2] + num_branches * forks)


class StepBranches(NamedTuple):
    """Branch points of a chain of steps.

    Attributes:
      max_entropy: ``[..., S]`` score of a step.
      best_prefix: ``[..., S]`` int32, tokens of the step after which a branch restarts.
      selected: ``[..., num_positions]`` int32 steps by falling score, -1 where there are too few.
    """

    max_entropy: Array
    best_prefix: Array
    selected: Array


def tool_light_branching(
    top_logprobs: Array,
    *,
    prefix_lengths: Sequence[int] = (10, 20, 30, 40, 50),
    num_positions: int = 3,
    where: Array | None = None,
) -> StepBranches:
    r"""Tool-Light: branch at the steps whose beginning the policy was least sure of.

    .. math:: H_t = -\sum_v p_v \log p_v,\quad E_n = \text{mean}_{t < n} H_t,\quad \text{score} = \max_n E_n

    over the log-probabilities that the sampler returned, not renormalised (so a lower bound of the entropy). A prefix
    longer than the step is the whole step; equal means keep the shortest prefix, equal scores the earlier step.

    Args:
      top_logprobs: ``[..., S, T, V]`` nats, of the most likely tokens at token T of step S.
      prefix_lengths: n, tokens.
      num_positions: steps to branch at.
      where: ``[..., S, T]`` real tokens, first in their step; a step without any is none.

    Raises:
      UserError: a count is below 1, or the shapes disagree.

    >>> sure, torn = jnp.log(jnp.array([1.0, 0.0])), jnp.log(jnp.array([0.5, 0.5]))
    >>> steps = jnp.stack([jnp.stack([sure, torn]), jnp.stack([torn, sure])])
    >>> print(tool_light_branching(steps, prefix_lengths=(1, 2), num_positions=1).selected)
    [1]

    References:
      *Toward Effective Tool-Integrated Reasoning via Self-Evolved Preference Learning* (Tool-Light), arXiv:2509.23285.
    """
    check_shapes(top_logprobs=top_logprobs, where=None if where is None else where[..., None])
    _check_counts(prefix_length=min(prefix_lengths, default=0), num_positions=num_positions)
    real = jnp.broadcast_to(True if where is None else where, top_logprobs.shape[:-1])
    entropy = -numerics.sum(_plogp(constant(top_logprobs, real[..., None])), -1)
    within = jnp.arange(entropy.shape[-1]) < jnp.asarray(prefix_lengths)[:, None]
    prefixes = jnp.broadcast_to(entropy[..., None, :], (*entropy.shape[:-1], *within.shape))
    means = numerics.mean(prefixes, -1, where=real[..., None, :] & within)
    best = jnp.asarray(prefix_lengths, jnp.int32)[jnp.argmax(means, -1)]
    score = means.max(-1)
    return StepBranches(score, best, largest(score, num_positions, where=real.any(-1)))


def _plogp(logprobs: Array) -> Array:
    """``p log p``, 0 for an impossible token."""
    possible = ~jnp.isneginf(logprobs)
    finite = jnp.where(possible, logprobs, 0)
    return jax.lax.stop_gradient(jnp.where(possible, jnp.exp(finite) * finite, 0))


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise errors.UserError(f"{name} must be at least 1, got {count}.")

"""Statistical rejection sampling (RSO): candidates of one policy thinned out to samples of a better one."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.types import Array, check_shapes


class Accepted(NamedTuple):
    """What rejection sampling takes.

    Attributes:
      indices: ``[..., num_samples]`` int, candidates in the order of acceptance; -1 where none was left.
      uniforms_consumed: ``[...]`` int, random numbers that were looked at.
      converged: ``[...]`` whether all samples that there could be were found before the random numbers ran out.
    """

    indices: Array
    uniforms_consumed: Array
    converged: Array


class _State(NamedTuple):
    indices: Array
    count: Array
    remaining: Array
    consumed: Array


def _sweep(state: _State, rewards: Array, uniforms: Array, beta: float | Array, wanted: Array) -> _State:
    """Visits every candidate that is left once, each with the next random number, up to the last sample wanted."""
    best = jnp.max(jnp.where(state.remaining, rewards, -jnp.inf))
    # the best is accepted whatever beta and the rewards are: 0 / 0 and -inf - -inf would not say so
    gap = jnp.where(
        rewards == best, 0, (rewards - jnp.where(jnp.isneginf(best), 0, best)) / jnp.where(beta > 0, beta, 1)
    )
    odds = jnp.where(beta > 0, jnp.exp(gap), rewards == best)
    visit = state.consumed + jnp.cumsum(state.remaining) - 1
    drawn = state.remaining & (visit < len(uniforms))
    accepted = drawn & (uniforms[jnp.where(drawn, visit, 0)] < odds)
    order = state.count + jnp.cumsum(accepted)  # which sample a candidate would be, from 1
    accepted &= order <= wanted
    slots = jnp.where(accepted, order - 1, len(state.indices))
    indices = state.indices.at[slots].set(jnp.arange(len(rewards), dtype=jnp.int32), mode="drop")
    count = state.count + accepted.sum()
    last = jnp.max(jnp.where(accepted, visit, -1)) + 1
    consumed = jnp.where(count == wanted, last, state.consumed + drawn.sum())
    return _State(indices, count, state.remaining & ~accepted, consumed)


def _sample(rewards: Array, uniforms: Array, where: Array, beta: Array, *, num_samples: int) -> Accepted:
    # a NaN reward would be the largest, and nothing would ever be accepted beside it
    where = where & ~jnp.isnan(rewards)
    wanted = jnp.minimum(where.sum(), num_samples)
    zero = jnp.zeros((), wanted.dtype)
    start = _State(jnp.full(num_samples, -1, jnp.int32), zero, where, zero)
    final = jax.lax.while_loop(
        lambda s: (s.count < wanted) & (s.consumed < len(uniforms)),
        lambda s: _sweep(s, rewards, uniforms, beta, wanted),
        start,
    )
    return Accepted(final.indices, final.consumed, final.count == wanted)


def rso_rejection_sampling(
    rewards: Array,
    uniforms: Array | None = None,
    *,
    beta: float | Array = 0.5,
    num_samples: int = 8,
    key: Array | None = None,
    where: Array | None = None,
) -> Accepted:
    r"""Picks candidates as samples of the policy that is optimal for their rewards.

    Sweeps over the candidates not yet accepted, in order; each is accepted when a uniform number is below

    .. math:: \exp\left((r(y) - r_{max})/\beta\right)

    with :math:`r_{max}` the largest reward left at the start of the sweep. It stops at ``num_samples``. The best one
    left is accepted in every sweep, so that K sweeps are enough and K (K + 1) / 2 random numbers always suffice.
    ``beta=0`` takes the best ones, ``beta=inf`` the first ones. Candidates are told apart by index, also where their
    texts are the same (the paper's listing merges those, and never ends when asked for more than there are).

    Args:
      rewards: ``[..., K]`` of candidates sampled from the reference policy.
      uniforms: ``[..., U]`` numbers in [0, 1) that are used in order; drawn with ``key`` by default.
      beta: strength of the KL regularisation, at least 0.
      num_samples: how many to pick, at most K; fewer where the candidates are fewer.
      key: for the random numbers, where none are given.
      where: ``[..., K]`` real candidates; a reward that is NaN is no candidate either.

    Raises:
      UserError: there is neither key nor uniforms, num_samples is not in 1..K, or the shapes disagree.

    >>> found = rso_rejection_sampling(jnp.array([1.0, 3.0, 2.0]), beta=0.0, num_samples=2, key=jax.random.key(0))
    >>> print(found.indices, found.converged)
    [1 2] True

    References:
      Liu et al., *Statistical Rejection Sampling Improves Preference Optimization*, arXiv:2309.06657.
    """
    check_shapes(rewards=rewards, where=where)
    rewards = numerics.accumulate(rewards)
    size = rewards.shape[-1]
    if not 1 <= num_samples <= size:
        raise errors.UserError(f"num_samples must be in 1..{size}, the number of candidates, got {num_samples}.")
    if uniforms is None:
        if key is None:
            raise errors.UserError("rso_rejection_sampling needs key=jax.random.key(seed), or uniforms of your own.")
        uniforms = jax.random.uniform(key, (*rewards.shape[:-1], size * (size + 1) // 2), rewards.dtype)
    where = jnp.ones(rewards.shape, bool) if where is None else jnp.broadcast_to(where, rewards.shape)
    pick = jnp.vectorize(functools.partial(_sample, num_samples=num_samples), signature="(k),(u),(k),()->(n),(),()")
    return Accepted(*pick(rewards, uniforms, where, jnp.asarray(beta, rewards.dtype)))

"""Soft Condorcet optimisation: ratings whose order agrees with the votes on most pairs, by gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.errors import UserError
from rlx.evaluation.checks import known_size, square
from rlx.types import Array, check_positive


class Ratings(NamedTuple):
    """Where the descent ended.

    Attributes:
      ratings: ``[N]``, within the bounds.
      gradient_norm: the largest entry of the gradient there, what the bounds hold back aside.
      converged: whether that is at most the tolerance.
    """

    ratings: Array
    gradient_norm: Array
    converged: Array


def soft_condorcet_loss(ratings: Array, preferences: Array, *, temperature: float | Array = 1.0) -> Array:
    r"""The smooth Kendall distance between ratings and votes.

    .. math:: \sum_{ab} N_{ab}\, \sigma\big((r_b - r_a)/T\big)

    Args:
      ratings: ``[N]``.
      preferences: ``[N, N]`` share of the votes that place a before b.
      temperature: T; towards 0 the loss counts the pairs ordered against the votes.

    >>> print(soft_condorcet_loss(jnp.array([0.0, 0.0]), jnp.array([[0.0, 1.0], [0.0, 0.0]])))
    0.5
    """
    return jnp.sum(preferences * jax.nn.sigmoid((ratings - ratings[:, None]) / temperature))


def soft_condorcet(
    preferences: Array,
    *,
    temperature: float | Array = 1.0,
    learning_rate: float | Array = 0.01,
    iterations: int = 1000,
    bounds: tuple[float, float] = (0.0, 1000.0),
    tolerance: float = 1e-3,
) -> Ratings:
    r"""Ratings that minimise :func:`soft_condorcet_loss`, by full-batch gradient descent within bounds.

    .. math:: r \leftarrow \text{clip}\big(r - \eta \nabla L(r)\big)

    Starts at the middle of the bounds and takes ``iterations`` steps, no fewer: ``converged`` says whether they were
    enough. The loss is not convex: below a temperature of the size of the rating differences it has flat regions.

    Args:
      preferences: ``[N, N]`` share of the votes that place a before b: :func:`rlx.evaluation.aggregation.\
preference_matrix` divided by the number of votes.
      temperature: T.
      learning_rate: eta.
      iterations: number of steps.
      bounds: lower and upper.
      tolerance: on the gradient, for the flag.

    Raises:
      UserError: preferences are not a square matrix, or the bounds are empty.

    >>> found = soft_condorcet(jnp.array([[0, 0.75], [0.25, 0]]), learning_rate=1.0)
    >>> print(bool(found.ratings[0] > found.ratings[1]), found.converged)
    True True

    References:
      Lanctot et al., *Soft Condorcet Optimization for Ranking of General Agents*, arXiv:2411.00119.
    """
    square("soft_condorcet", least=2, preferences=preferences)
    start = _middle(bounds, len(preferences), numerics.accumulate(preferences).dtype)
    check_positive(temperature=temperature, learning_rate=learning_rate, iterations=iterations)
    return _descend(start, numerics.accumulate(preferences), temperature, learning_rate, iterations, bounds, tolerance)


@jax.jit
def _descend(
    start: Array,
    preferences: Array,
    temperature: Array,
    learning_rate: Array,
    iterations: Array,
    bounds: tuple[Array, Array],
    tolerance: Array,
) -> Ratings:
    def gradient(ratings: Array) -> Array:
        return jax.grad(soft_condorcet_loss)(ratings, preferences, temperature=temperature)

    def step(_: Array, ratings: Array) -> Array:
        return jnp.clip(ratings - learning_rate * gradient(ratings), *bounds)

    ratings = jax.lax.fori_loop(0, iterations, step, start)
    norm = jnp.abs(_free(gradient(ratings), ratings, bounds)).max()
    return Ratings(ratings, norm, norm <= tolerance)


def fenchel_young_condorcet(
    votes: Sequence[Sequence[int]] | Array,
    *,
    key: Array,
    alternatives: int | None = None,
    sigma: float = 100.0,
    learning_rate: float = 0.01,
    iterations: int = 1000,
    bounds: tuple[float, float] = (0.0, 1000.0),
    tolerance: float = 0.1,
) -> Ratings:
    r"""Ratings under a Fenchel-Young loss: ranks perturbed by noise should on average be those of the votes.

    .. math:: \nabla_a = \frac1{|V|} \sum_v \big( \text{rank}_v(a) - \text{rank}(r + \sigma\,\text{Gumbel})_a \big)

    Ranks count from 0 for the best. The descent is stochastic, one draw of noise a step, and takes ``iterations``
    steps; ``gradient_norm`` and ``converged`` are about the mean gradient of its second half, in ranks.

    Args:
      votes: rankings, the best first; those that leave alternatives out may be padded with -1.
      key: of the noise.
      alternatives: N; by default the highest id + 1.
      sigma: scale of the noise.
      learning_rate: of the descent.
      iterations: number of steps.
      bounds: lower and upper.
      tolerance: on the mean gradient, for the flag.

    >>> found = fenchel_young_condorcet([[0, 1], [0, 1], [1, 0]], key=jax.random.PRNGKey(0), learning_rate=1.0)
    >>> print(bool(found.ratings[0] > found.ratings[1]), found.converged)
    True True

    References:
      Lanctot et al., *Soft Condorcet Optimization for Ranking of General Agents*, arXiv:2411.00119;
      Berthet et al., *Learning with Differentiable Perturbed Optimizers*, arXiv:2002.08676.
    """
    if isinstance(votes, Sequence):
        longest = max(map(len, votes))
        padded = jnp.array([[*vote, *[-1] * (longest - len(vote))] for vote in votes], jnp.int32)
    else:
        padded = jnp.asarray(votes)
    size = alternatives or known_size("fenchel_young_condorcet", "alternatives", padded)
    check_positive(sigma=sigma, learning_rate=learning_rate, iterations=iterations)
    start = _middle(bounds, size, jnp.result_type(float))
    return _perturbed(start, padded, key, sigma, learning_rate, iterations, bounds, tolerance)


@jax.jit
def _perturbed(
    start: Array,
    votes: Array,
    key: Array,
    sigma: Array,
    learning_rate: Array,
    iterations: Array,
    bounds: tuple[Array, Array],
    tolerance: Array,
) -> Ratings:
    named = votes >= 0
    target = jnp.arange(votes.shape[1])

    def gradient(ratings: Array, step: Array) -> Array:
        noise = jax.random.gumbel(jax.random.fold_in(key, step), votes.shape, jnp.float32)
        perturbed = ratings[votes] + sigma * noise
        better = (perturbed[:, None, :] > perturbed[:, :, None]) & named[:, None, :]
        difference = jnp.where(named, target - better.sum(-1), 0).astype(ratings.dtype)
        return jnp.zeros_like(ratings).at[votes].add(difference) / len(votes)

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        ratings, total = carry
        slope = gradient(ratings, i)
        total = total + jnp.where(i >= iterations // 2, _free(slope, ratings, bounds), 0)
        return jnp.clip(ratings - learning_rate * slope, *bounds), total

    ratings, total = jax.lax.fori_loop(0, iterations, step, (start, jnp.zeros_like(start)))
    norm = jnp.abs(total).max() / (iterations - iterations // 2)
    return Ratings(ratings, norm, norm <= tolerance)


def _free(gradient: Array, ratings: Array, bounds: tuple[Array, Array]) -> Array:
    """The gradient without what pushes a rating over a bound it stands on."""
    held = ((ratings <= bounds[0]) & (gradient > 0)) | ((ratings >= bounds[1]) & (gradient < 0))
    return jnp.where(held, 0, gradient)


def _middle(bounds: tuple[float, float], size: int, dtype: jnp.dtype) -> Array:
    if not bounds[0] < bounds[1]:
        raise UserError(f"the lower bound of ratings must be below the upper one, not {bounds}.")
    return jnp.full(size, (bounds[0] + bounds[1]) / 2, dtype)

"""alpha-Rank: the share of time that a population under selection and mutation plays each strategy."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx import numerics
from rlx.errors import UserError
from rlx.types import Array, check_positive


class AlphaRank(NamedTuple):
    """The Markov chain over strategies, or over profiles of strategies in row-major order.

    Attributes:
      stationary_distribution: ``[S]``; larger is better.
      fixation_probabilities: ``[S, S]`` probability that a mutant r takes over a population of s; 0 on the diagonal,
        where nobody deviates alone, and everywhere for infinite alpha.
      ranking: ``[S]`` strategies, the best first.
    """

    stationary_distribution: Array
    fixation_probabilities: Array
    ranking: Array


def alpha_rank(
    payoffs: Array,
    *,
    m: int = 50,
    alpha: float | Array = 100.0,
    local_selection: bool = True,
    infinite_alpha: bool = False,
    epsilon: float = 0.01,
) -> AlphaRank:
    r"""alpha-Rank of the strategies of a game.

    .. math:: C_{sr} = \eta\,\rho_{sr},\quad \rho_{sr} = \frac{1 - e^{-u}}{1 - e^{-m u}},\quad
              u = \alpha\,(\text{payoff}(r, s) - \text{payoff}(s, r)),\quad \pi = \pi C

    Transition rates are kept as logarithms and the chain is solved by eliminating its states one by one (Grassmann,
    Taksar and Heyman), without a subtraction: no rate or mass is too small. What limits alpha is rounding: the
    logarithms reach m times alpha times the gains, which float32 holds to a hundredth up to about 1e5.

    Args:
      payoffs: ``[N, N]`` payoff of strategy i against j in one population, or ``[P, N_1, ..., N_P]`` payoffs of the
        players of P populations.
      m: size of the population.
      alpha: intensity of selection. Raise it until the ranking no longer changes: :func:`alpha_rank_sweep`.
      local_selection: a mutant is compared with the resident it meets; False: with the whole population (of one game).
      infinite_alpha: the limit, in which only the sign of the gain counts.
      epsilon: in the limit, what is left to changes for the worse, so that the chain stays connected.

    Returns:
      An :class:`AlphaRank`; the elimination is exact, it has nothing to converge.

    Raises:
      UserError: the payoffs have another shape, or there is a single strategy.

    >>> rock_paper_scissors = jnp.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0.0]])
    >>> print(alpha_rank(rock_paper_scissors).stationary_distribution)
    [0.3333... 0.3333... 0.3333...]

    References:
      Omidshafiei et al., *alpha-Rank: Multi-Agent Evaluation by Evolution*, arXiv:1903.01373.
    """
    check_positive(m=m, alpha=alpha, epsilon=epsilon)
    payoffs = numerics.accumulate(payoffs)
    single = payoffs.ndim == 2
    if (single and payoffs.shape[0] != payoffs.shape[1]) or (not single and payoffs.ndim != len(payoffs) + 1):
        raise UserError(f"alpha_rank needs payoffs [N, N] or [P, N_1, ..., N_P], not {payoffs.shape}.")
    if payoffs.size < 2 or not (local_selection or single):
        raise UserError("alpha_rank needs two strategies, and several populations need local selection.")
    return _alpha_rank(payoffs, m, alpha, epsilon, single, local_selection, infinite_alpha)


@functools.partial(jax.jit, static_argnames=("m", "single", "local", "infinite"))
def _alpha_rank(
    payoffs: Array, m: int, alpha: Array, epsilon: Array, single: bool, local: bool, infinite: bool
) -> AlphaRank:
    if single:
        gains, allowed = payoffs.T - payoffs, ~jnp.eye(len(payoffs), dtype=bool)
    else:
        gains, allowed = _unilateral(payoffs)
    if infinite:
        likely = jnp.where(gains > 0, 1 - epsilon, jnp.where(gains < 0, epsilon, 0.5))
        rates = jnp.log(likely)
    else:
        rates = log_fixation(alpha * gains, m) if local else _log_fixation_in_population(alpha * payoffs, m)
    rates = jnp.where(allowed, rates, -jnp.inf)
    distribution = jnp.exp(log_stationary(rates))
    fixation = jnp.zeros_like(rates) if infinite else jnp.exp(rates)
    return AlphaRank(distribution, fixation, jnp.argsort(-distribution))


def log_fixation(u: Array, m: int) -> Array:
    r"""``log((1 - e^-u) / (1 - e^-mu))``, for u of any sign and size; ``-log m`` at 0.

    >>> print(log_fixation(jnp.array([0.0, 1e4, -1e4]), 50))
    [-3.912023e+00 0.000000e+00 -4.900000e+05]
    """
    size = jnp.where(u == 0, 1, jnp.abs(u))
    ratio = jnp.log(-jnp.expm1(-size)) - jnp.log(-jnp.expm1(-m * size))
    return jnp.where(u == 0, -jnp.log(m * jnp.ones_like(u)), jnp.where(u > 0, ratio, ratio + (m - 1) * u))


def _log_fixation_in_population(payoffs: Array, m: int) -> Array:
    """Global selection: r's share l of the population grows from 1 to m; payoffs already times alpha."""
    l = jnp.arange(1, m)[:, None, None]  # noqa: E741 (the paper's letter)
    own = jnp.diag(payoffs)
    mutant = ((l - 1) * own + (m - l) * payoffs.T) / (m - 1)
    resident = (l * payoffs + (m - l - 1) * own[:, None]) / (m - 1)
    steps = jnp.cumsum(resident - mutant, 0)
    return -jnp.logaddexp(0, numerics.logsumexp(steps, 0))


def _unilateral(payoffs: Array) -> tuple[Array, Array]:
    """Gains ``[S, S]`` of the player who deviates from profile s to r, and whether one player alone does."""
    shape = payoffs.shape[1:]
    profiles = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), -1)
    differs = profiles[:, None] != profiles
    values = payoffs.reshape(len(payoffs), -1).T
    gains = jnp.where(differs, values[None] - values[:, None], 0)  # of the players who stay, nothing counts
    return gains.sum(-1), jnp.asarray(differs.sum(-1) == 1)


def log_stationary(rates: Array) -> Array:
    """Log of the stationary distribution of a chain with log transition rates ``[S, S]``, by state elimination.

    Rates from s to r; the diagonal is not read. A common factor of all rates changes nothing.

    >>> print(jnp.exp(log_stationary(jnp.log(jnp.array([[0.0, 0.1], [0.3, 0.0]])))))
    [0.75 0.25]
    """
    size = len(rates)
    states = jnp.arange(size)
    rates = jnp.where(jnp.eye(size, dtype=bool), -jnp.inf, rates)

    def eliminate(i: Array, rates: Array) -> Array:
        n = size - 1 - i
        leaves = numerics.logsumexp(jnp.where(states < n, rates[n], -jnp.inf))
        enters = rates[:, n] - leaves
        through = jnp.logaddexp(rates, enters[:, None] + rates[n])
        left = (states[:, None] < n) & (states < n)
        return jnp.where(left, through, rates).at[:, n].set(jnp.where(states < n, enters, rates[:, n]))

    def restore(n: Array, logs: Array) -> Array:
        return logs.at[n].set(numerics.logsumexp(jnp.where(states < n, logs + rates[:, n], -jnp.inf)))

    rates = jax.lax.fori_loop(0, size - 1, eliminate, rates)
    logs = jax.lax.fori_loop(1, size, restore, jnp.zeros(size, rates.dtype))
    return numerics.log_softmax(logs - logs.max())  # large logs would swallow the sum's share


class Sweep(NamedTuple):
    """The first alpha at which nothing changes any more.

    Attributes:
      stationary_distribution: ``[S]`` at that alpha.
      alpha: where the sweep ended.
      converged: whether it ended because nothing changed.
    """

    stationary_distribution: Array
    alpha: Array
    converged: Array


def alpha_rank_sweep(
    payoffs: Array, *, m: int = 50, start: float = 1e-2, factor: float = 2.0, tolerance: float = 1e-4, steps: int = 40
) -> Sweep:
    """Raises alpha geometrically until a further step moves no mass by more than the tolerance.

    Args:
      payoffs: as :func:`alpha_rank` takes them.
      m: size of the population.
      start: the first alpha.
      factor: between one alpha and the next.
      tolerance: on the change of the distribution (largest entry), which must also be less than a tenth of its
        distance from the uniform one.
      steps: at most.

    >>> found = alpha_rank_sweep(jnp.array([[0.0, 1.0], [0.5, 0.0]]))
    >>> print(found.stationary_distribution.round(3), found.converged)
    [1. 0.] True
    """

    def unfinished(carry: tuple[Array, Array, Array, Array]) -> Array:
        left = jnp.abs(carry[0] - 1 / carry[0].size).max()  # near alpha = 0 steps are small, too, but a share of this
        return (carry[2] > jnp.minimum(tolerance, left / 10)) & (carry[3] < steps)

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        before, alpha, _, count = carry
        after = alpha_rank(payoffs, m=m, alpha=alpha * factor).stationary_distribution
        return after, alpha * factor, jnp.abs(after - before).max(), count + 1

    first = alpha_rank(payoffs, m=m, alpha=start).stationary_distribution
    unknown = jnp.asarray(jnp.inf, first.dtype)
    carry = first, jnp.asarray(start, first.dtype), unknown, jnp.zeros((), jnp.int32)
    distribution, alpha, moved, _ = jax.lax.while_loop(unfinished, step, carry)
    return Sweep(distribution, alpha, moved <= tolerance)

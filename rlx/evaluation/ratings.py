"""Ratings from games between pairs: Elo one game after another, Bradley-Terry by maximum likelihood with intervals."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx import numerics
from rlx.errors import UserError
from rlx.evaluation.checks import known_size, square
from rlx.types import Array

ELO_SCALE = 400 / math.log(10)
"""Elo points per natural log-odds."""


class Elo(NamedTuple):
    """Ratings ``[N]`` after all games, and ``[G, 2]`` of the two players after each."""

    ratings: Array
    after_each_game: Array


def elo(
    player_a: Array,
    player_b: Array,
    score_a: Array,
    *,
    players: int | None = None,
    k_factor: float = 32.0,
    scale: float = 400.0,
    base: float = 10.0,
    initial: float = 1000.0,
) -> Elo:
    r"""Online Elo ratings. They depend on the order of the games: see :func:`elo_bootstrap` for a stable version.

    .. math:: E_a = \frac{1}{1 + b^{(R_b - R_a)/s}},\quad R_a \mathrel{+}= K (S_a - E_a),\quad
              R_b \mathrel{-}= K (S_a - E_a)

    Args:
      player_a: ``[G]`` ids from 0.
      player_b: ``[G]`` their opponents.
      score_a: ``[G]`` 1 if a won, 0 if b did, 1/2 for a tie.
      players: their number; by default the highest id + 1, which needs ids that are not traced.
      k_factor: K, points at stake; 4 on Chatbot Arena.
      scale: s, the points that multiply the odds by the base.
      base: b.
      initial: rating of everybody before the first game.

    Raises:
      UserError: the shapes differ, or the number of players is not known.

    >>> print(elo(jnp.array([0, 0]), jnp.array([1, 1]), jnp.array([1.0, 0.5])).ratings)
    [1014.5... 985.4...]

    References:
      Elo, *The Rating of Chessplayers, Past and Present*, 1978.
    """
    games = _games(player_a, player_b, score_a)
    return _elo(
        *games,
        jnp.arange(games[0].size),
        players or known_size("elo", "players", *games[:2]),
        k_factor,
        scale / math.log(base),
        initial,
    )


@functools.partial(jax.jit, static_argnums=4)
def _elo(a: Array, b: Array, score: Array, order: Array, players: int, k: float, scale: float, initial: float) -> Elo:
    """Plays the games in an order; ``scale`` in points per natural log-odds."""

    def play(ratings: Array, game: Array) -> tuple[Array, Array]:
        one, other = a[game], b[game]
        gain = k * (score[game] - jax.nn.sigmoid((ratings[one] - ratings[other]) / scale))
        ratings = ratings.at[one].add(gain).at[other].add(-gain)
        return ratings, jnp.stack([ratings[one], ratings[other]])

    return Elo(*jax.lax.scan(play, jnp.full(players, initial, score.dtype), order))


class Rated(NamedTuple):
    """Mean ratings ``[N]`` over resampled games and their percentile interval."""

    ratings: Array
    low: Array
    high: Array


def elo_bootstrap(
    player_a: Array,
    player_b: Array,
    score_a: Array,
    *,
    key: Array,
    players: int | None = None,
    resamples: int = 100,
    replace: bool = True,
    confidence: float = 0.95,
    k_factor: float = 4.0,
    scale: float = 400.0,
    base: float = 10.0,
    initial: float = 1000.0,
) -> Rated:
    """Elo over many orders of the games: a mean that no order decides, and percentile intervals.

    Args:
      player_a: ``[G]`` ids from 0.
      player_b: ``[G]`` their opponents.
      score_a: ``[G]`` 1 if a won, 0 if b did, 1/2 for a tie.
      key: of the resampling.
      players: their number; by default the highest id + 1.
      resamples: how many orders.
      replace: draw games with replacement (bootstrap); False shuffles all of them.
      confidence: of the interval; without replacement it shows what the order alone does.
      k_factor: points at stake.
      scale: points that multiply the odds by the base.
      base: of the odds.
      initial: rating of everybody before the first game.

    >>> found = elo_bootstrap(jnp.zeros(50, int), jnp.ones(50, int), jnp.ones(50), key=jax.random.PRNGKey(0))
    >>> bool(found.low[0] > 1000 > found.high[1])
    True
    """
    a, b, score = _games(player_a, player_b, score_a)
    number = players or known_size("elo_bootstrap", "players", a, b)

    def once(key: Array) -> Array:
        order = jax.random.choice(key, score.size, (score.size,), replace)
        return _elo(a, b, score, order, number, k_factor, scale / math.log(base), initial).ratings

    ratings = jax.lax.map(once, jax.random.split(key, resamples), batch_size=16)
    ends = jnp.quantile(ratings, jnp.array([0.5 - confidence / 2, 0.5 + confidence / 2]), axis=0)
    return Rated(ratings.mean(0), *ends)


class BradleyTerry(NamedTuple):
    """A fitted Bradley-Terry model.

    Attributes:
      log_strengths: ``[N]``, natural logarithms with mean 0.
      covariance: ``[N, N]`` of them, the pseudo-inverse of the Fisher information.
      standard_errors: ``[N]``.
      converged: whether these are the maximiser and there is one.
      separable: whether the players fall into two groups of which one never lost a point to the other: without a ridge
        the likelihood then has no maximiser.
      steps: Newton steps taken.
    """

    log_strengths: Array
    covariance: Array
    standard_errors: Array
    converged: Array
    separable: Array
    steps: Array


def bradley_terry_mle(
    wins: Array, ties: Array | None = None, *, ridge: float | Array = 0.0, max_steps: int = 100
) -> BradleyTerry:
    r"""Bradley-Terry strengths by maximum likelihood.

    .. math:: \max_\theta \sum_{ij} W_{ij} \log\sigma(\theta_i - \theta_j) - \tfrac{\lambda}{2} |\theta|^2,\quad
              \textstyle\sum\theta = 0,\qquad \text{cov} = \big[-\partial^2\big]^+

    Damped Newton steps, which converge from anywhere where there is a maximiser; they stop when a step changes no
    difference by more than the square root of the machine precision (the error is then of the order of the precision
    itself) or after ``max_steps``. Covariances are those of the model, not of a bootstrap or a sandwich.

    Args:
      wins: ``[N, N]`` how often i beat j.
      ties: ``[N, N]``, symmetric; a tie is half a win for both.
      ridge: lambda. A small one makes separable data finite, pulls all strengths together, and is in the covariance.
      max_steps: at most.

    Raises:
      UserError: the matrices are not square and of one size.

    >>> fit = bradley_terry_mle(jnp.array([[0, 3.0], [1.0, 0]]))
    >>> print(fit.log_strengths, fit.converged, bradley_terry_mle(jnp.array([[0, 3.0], [0, 0]])).converged)
    [ 0.549... -0.549...] True False

    References:
      Bradley and Terry, *Rank Analysis of Incomplete Block Designs*, Biometrika 39, 1952;
      Chiang et al., *Chatbot Arena*, arXiv:2403.04132; Sun and Tran-Dinh, *Generalized Self-Concordant Functions*,
      arXiv:1703.04599 (the damping).
    """
    square("bradley_terry_mle", least=2, **{"wins": wins} | ({} if ties is None else {"ties": ties}))
    return _bradley_terry(
        numerics.accumulate(wins) + (0 if ties is None else numerics.accumulate(ties) / 2), ridge, max_steps
    )


@jax.jit
def _bradley_terry(wins: Array, ridge: Array, max_steps: Array) -> BradleyTerry:
    size = len(wins)
    games, centring = wins + wins.T, jnp.eye(size, dtype=wins.dtype) - 1 / size

    def pseudo_inverse(strengths: Array) -> Array:
        chance = jax.nn.sigmoid(strengths[:, None] - strengths)
        weight = games * chance * chance.T
        return jnp.linalg.pinv(jnp.diag(weight.sum(-1)) - weight + ridge * centring, hermitian=True)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        return (carry[1] > jnp.sqrt(jnp.finfo(wins.dtype).eps)) & (carry[2] < max_steps)

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        strengths = carry[0]
        lost = jax.nn.sigmoid(strengths - strengths[:, None])
        gradient = (wins * lost - wins.T * lost.T).sum(-1) - ridge * strengths
        newton = pseudo_inverse(strengths) @ gradient
        spread = newton.max() - newton.min()
        damping = jnp.where(spread > 0, jnp.log1p(spread) / jnp.where(spread > 0, spread, 1), 1)
        return strengths + damping * newton, spread, carry[2] + 1

    start = jnp.zeros(size, wins.dtype), jnp.array(jnp.inf, wins.dtype), jnp.zeros((), jnp.int32)
    strengths, spread, steps = jax.lax.while_loop(unfinished, step, start)
    covariance, separable = pseudo_inverse(strengths), ~strongly_connected(wins > 0)
    finished = ~unfinished((strengths, spread, jnp.zeros((), jnp.int32))) & (~separable | (ridge > 0))
    return BradleyTerry(strengths, covariance, jnp.sqrt(jnp.diag(covariance)), finished, separable, steps)


def strongly_connected(edges: Array) -> Array:
    """Whether every node of a directed graph ``[N, N]`` reaches every other one.

    >>> print(strongly_connected(jnp.array([[0, 1], [1, 0]]) > 0), strongly_connected(jnp.array([[0, 1], [0, 0]]) > 0))
    True False
    """
    reach = (edges | jnp.eye(len(edges), dtype=bool)).astype(jnp.float32)
    for _ in range(math.ceil(math.log2(max(len(edges), 2)))):
        reach = jnp.minimum(reach @ reach, 1)
    return (reach > 0).all()


class Spread(NamedTuple):
    """Estimates and the ends of their intervals."""

    mean: Array
    low: Array
    high: Array


def intervals(fit: BradleyTerry, *, z: float = 1.96) -> Spread:
    """Intervals ``[N]`` of the log-strengths; of two of them, see :func:`difference_intervals`."""
    return _spread(fit.log_strengths, fit.standard_errors, z)


def difference_intervals(fit: BradleyTerry, *, z: float = 1.96) -> Spread:
    r"""Intervals ``[N, N]`` of the differences of log-strengths, with the covariance of the two.

    .. math:: \theta_i - \theta_j \pm z \sqrt{C_{ii} + C_{jj} - 2 C_{ij}}

    >>> found = difference_intervals(bradley_terry_mle(jnp.array([[0, 30.0], [10.0, 0]])))
    >>> print(f"{found.mean[0, 1]:.3f} [{found.low[0, 1]:.3f}, {found.high[0, 1]:.3f}]")
    1.099 [0.383, 1.814]
    """
    own = jnp.diag(fit.covariance)
    variance = jnp.maximum(own[:, None] + own - 2 * fit.covariance, 0)
    return _spread(fit.log_strengths[:, None] - fit.log_strengths, jnp.sqrt(variance), z)


def _spread(mean: Array, error: Array, z: float) -> Spread:
    return Spread(mean, mean - z * error, mean + z * error)


def elo_scale(log_strengths: Array, *, scale: float = ELO_SCALE, base: float = 1000.0) -> Array:
    """Log-strengths in points around ``base``; 400 points multiply the odds by 10.

    >>> print(elo_scale(jnp.log(jnp.array([10.0, 1.0]))))
    [1400. 1000.]
    """
    return base + scale * log_strengths


def win_probability(log_strengths: Array) -> Array:
    """``[N, N]`` probability that i beats j."""
    return jax.nn.sigmoid(log_strengths[:, None] - log_strengths)


def _games(player_a: Array, player_b: Array, score_a: Array) -> tuple[Array, Array, Array]:
    shapes = [np.shape(x) for x in (player_a, player_b, score_a)]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise UserError(f"elo needs three vectors of one length, not player_a, player_b, score_a of shapes {shapes}.")
    return jnp.asarray(player_a), jnp.asarray(player_b), numerics.accumulate(score_a)

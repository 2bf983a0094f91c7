"""Groups of users with rewards of their own (MaxMin-RLHF): who belongs to which, and who is served worst.

Rewards of groups stand on a leading axis G. A group is found by hard expectation maximisation over *users*: all
comparisons of a user vote together.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.preference import links, scores
from rlx.types import Array, check_pairs, check_positive, check_shapes


class Assignment(NamedTuple):
    """Log-likelihood of users under every group's reward ``[G, U]``, and the likeliest group ``[U]`` (ties: lowest)."""

    user_loglik: Array
    groups: Array


def assign_users(rewards: Array, *, where: Array | None = None) -> Assignment:
    r"""The E-step: :math:`g_u = \arg\max_g \sum_m \log\sigma(r_g(y_w) - r_g(y_l))` over the comparisons m of a user.

    Args:
      rewards: ``[G, U, M, 2]`` reward of both responses under each group, chosen first.
      where: ``[U, M]`` real comparisons.

    Raises:
      UserError: the last axis is not 2, or the shapes disagree.

    >>> rewards = jnp.array([[[[0.0, 1.0]]], [[[1.0, 0.0]]]])
    >>> print(assign_users(rewards).groups)
    [1]
    """
    check_pairs(rewards=rewards)
    check_shapes(**{"where": where, "comparisons of a group": rewards[0, ..., 0]})
    margins = numerics.clean(scores.margin(numerics.accumulate(rewards)), where)
    likelihood = -numerics.sum(links.logistic(margins), -1, where=where)
    return Assignment(likelihood, jnp.argmax(likelihood, 0))


class WorstGroup(NamedTuple):
    """Mean reward of each group ``[G]``, the group that has least (ties: lowest), and what it has."""

    objectives: Array
    group: Array
    objective: Array


def worst_group(rewards: Array, *, where: Array | None = None) -> WorstGroup:
    r"""The policy's objective without its KL: :math:`\min_g E_\pi[r_g]`, from samples of the policy.

    Args:
      rewards: ``[G, N]`` reward of N sampled responses under each group.
      where: ``[N]`` real samples.

    >>> print(worst_group(jnp.array([[1.0, 3.0], [0.0, 2.0]])))
    WorstGroup(objectives=Array([2., 1.], dtype=float32), group=Array(1, dtype=int32), objective=Array(1., ...))
    """
    objectives = numerics.mean(rewards, -1, where=where)
    return WorstGroup(objectives, jnp.argmin(objectives, 0), objectives.min(0))


class Mixture(NamedTuple):
    """Linear rewards of groups of users.

    Attributes:
      weights: ``[G, D]``: the reward of a response is ``features @ weights[g]``.
      groups: ``[U]`` group of each user.
      loglik: of all comparisons, each under its user's group; with shares, of the groups too.
      converged: no user changed group in the last step, and the likelihood stood still.
      steps: of expectation maximisation.
    """

    weights: Array
    groups: Array
    loglik: Array
    converged: Array
    steps: Array


def maxmin_rlhf_mixture(
    features: Array,
    *,
    groups: int = 2,
    shares: bool = False,
    ridge: float = 1e-2,
    restarts: int = 16,
    tolerance: float = 1e-4,
    max_steps: int = 200,
    seed: int = 0,
    where: Array | None = None,
) -> Mixture:
    r"""Hard EM over users: Bradley-Terry rewards of G groups, linear in features, and who belongs where.

    .. math:: g_u = \arg\max_g \prod_{m}\sigma(\theta_g^\top x_{um}),\qquad
       \theta_g = \arg\max_\theta \sum_{u: g_u = g}\sum_m \log\sigma(\theta^\top x_{um}) - \tfrac\rho2|\theta|^2

    with :math:`x = \phi(y_w) - \phi(y_l)`. This likelihood, the paper's, takes groups to be equally likely: it gains by
    splitting a large majority before it singles out a few users. ``shares`` adds the logarithm of the group's share of
    the users to the E-step, as the likelihood of a mixture has it, which does find small groups.

    The M-step takes monotone steps with the bound :math:`X^\top X/4` on the
    curvature. Groups start at single users, far from one another as in k-means++; the likeliest of the restarts is
    returned. A run stops when no user changes group and no weight moves by more than ``tolerance``. A group may end
    empty: then its weights are 0.

    Args:
      features: ``[U, M, 2, D]`` features of both responses of M comparisons of U users, chosen first.
      groups: G.
      shares: weigh groups by their share of the users, of which each has one more than it has.
      ridge: of the weights, above 0.
      restarts: independent starts.
      tolerance: on the largest change of a weight.
      max_steps: at most; ``converged`` then says so.
      seed: of the starts.
      where: ``[U, M]`` real comparisons.

    Raises:
      UserError: ridge, groups or restarts is not above 0, or the shapes disagree.

    >>> features = jnp.array([[[[1.0], [0.0]]]] * 3 + [[[[0.0], [1.0]]]])
    >>> print(maxmin_rlhf_mixture(features).groups.sum() in (1, 3))
    True

    References:
      Chakraborty et al., *MaxMin-RLHF: Alignment with Diverse Human Preferences*, arXiv:2402.08925.
    """
    check_positive(ridge=ridge, groups=groups, restarts=restarts)
    if features.ndim != 4 or features.shape[2] != 2:
        raise errors.UserError(f"features has shape {features.shape}: it wants [users, comparisons, 2, features].")
    check_shapes(**{"where": where, "comparisons of a user": features[..., 0, 0]})
    real = jnp.ones(features.shape[:2], bool) if where is None else where
    features = numerics.clean(numerics.accumulate(features), real[..., None, None])
    problem = _Comparisons(features[:, :, 0] - features[:, :, 1], real, ridge, shares)
    runs = jax.vmap(lambda key: _expectation_maximisation(problem, key, groups, tolerance, max_steps))(
        jax.random.split(jax.random.key(seed), restarts)
    )
    best = jnp.argmax(runs.loglik)
    return jax.tree.map(lambda x: x[best], runs)


class _Comparisons(NamedTuple):
    """Differences of features ``[U, M, D]``, the real comparisons ``[U, M]``, the ridge, and whether shares count."""

    differences: Array
    where: Array
    ridge: float | Array
    shares: bool

    def loglik(self, weights: Array) -> Array:
        """``[G, D] -> [G, U]``."""
        margins = jnp.einsum("umd,gd->gum", self.differences, weights)
        return -numerics.sum(links.logistic(margins), -1, where=self.where)

    def climb(self, weights: Array, members: Array, steps: int) -> Array:
        """Monotone steps of a group's weights ``[D]`` on the likelihood of its members ``[U]`` (0 or 1)."""
        x, size = self.differences, weights.shape[-1]
        curvature = jnp.einsum("u,umd,ume->de", members, x, x) / 4 + self.ridge * jnp.eye(size, dtype=x.dtype)
        factor = jax.scipy.linalg.cho_factor(curvature)

        def step(_: Array, w: Array) -> Array:
            surprise = jax.nn.sigmoid(-jnp.einsum("umd,d->um", x, w))
            slope = jnp.einsum("u,um,umd->d", members, surprise, x) - self.ridge * w
            return w + jax.scipy.linalg.cho_solve(factor, slope)

        return jax.lax.fori_loop(0, steps, step, weights)


def _far_users(problem: _Comparisons, key: Array, groups: int) -> Array:
    """Starting weights ``[G, D]``: each of one user, drawn where the groups so far explain least."""
    users, _, size = problem.differences.shape
    present = problem.where.any(-1)
    chance = present.astype(problem.differences.dtype)
    best, found = jnp.full(users, -jnp.inf), []
    for draw in jax.random.split(key, groups):
        user = jax.random.choice(draw, users, p=chance / chance.sum())
        start = jnp.zeros(size, problem.differences.dtype)
        found.append(problem._replace(ridge=1.0).climb(start, jnp.arange(users) == user, 20))
        best = jnp.maximum(best, problem.loglik(found[-1][None])[0])
        # the likelihood that is lacking, to the square, stands for the distance of k-means++
        chance = jnp.where(present, jnp.square(best) + 1e-6, 0)
    return jnp.stack(found)


def _expectation_maximisation(
    problem: _Comparisons, key: Array, groups: int, tolerance: float, max_steps: int
) -> Mixture:
    """One run from one start."""

    def assigned(weights: Array, members: Array | None = None) -> tuple[Array, Array]:
        likelihood = problem.loglik(weights)
        if problem.shares and members is not None:
            sizes = members.sum(-1, keepdims=True) + 1
            likelihood = likelihood + jnp.log(sizes / sizes.sum())
        return jnp.argmax(likelihood, 0), likelihood.max(0).sum()

    def step(run: Mixture) -> Mixture:
        members = run.groups == jnp.arange(groups)[:, None]
        climb = jax.vmap(lambda w, m: problem.climb(w, m.astype(w.dtype), 10))
        weights = climb(run.weights, members)
        following, loglik = assigned(weights, members)
        still = jnp.abs(weights - run.weights).max() <= tolerance
        return Mixture(weights, following, loglik, still & (following == run.groups).all(), run.steps + 1)

    start = _far_users(problem, key, groups)
    first = Mixture(start, *assigned(start), jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(lambda run: ~run.converged & (run.steps < max_steps), step, first)

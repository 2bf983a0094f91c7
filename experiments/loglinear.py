r"""A log-linear preference problem whose every expectation is exact: no sampling noise at evaluation.

``S`` contexts, ``A`` actions, features :math:`\phi(s,a) \sim N(0, I/D)`, true reward :math:`r = \phi^\top\theta^*` with
:math:`\theta^* \sim 3 N(0, I)`, a uniform reference policy, and policies
:math:`\pi_\theta(a|s) \propto e^{\phi^\top\theta}`.
The optimum of reward minus ``beta`` KL lies in the class, at :math:`\theta^*/\beta`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from rlx.types import Array


class Problem(NamedTuple):
    """Features ``[S, A, D]`` and the true parameters ``[D]``."""

    features: np.ndarray
    theta: np.ndarray

    @property
    def rewards(self) -> np.ndarray:
        """``[S, A]``."""
        return self.features @ self.theta


def problem(seed: int, *, contexts: int, actions: int, dimension: int, scale: float) -> Problem:
    """Draws a problem; ``scale`` is the standard deviation of the true parameters."""
    rng = _stream(seed, "problem")
    features = rng.standard_normal((contexts, actions, dimension)) / np.sqrt(dimension)
    return Problem(features, scale * rng.standard_normal(dimension))


def preference_counts(problem: Problem, seed: int, *, pairs: int, flip_rate: float) -> np.ndarray:
    """How often each ordered pair of :func:`ordered_pairs` was seen in a context: ``[S, A (A-1)]``, ``pairs`` in all.

    Contexts and pairs of different actions are uniform, labels Bradley-Terry on the true reward and then flipped with
    ``flip_rate``. The flip rates of a seed share all numbers, and fewer ``pairs`` are a prefix of more.
    """
    contexts, actions = problem.rewards.shape
    context = _stream(seed, "context").integers(0, contexts, pairs)
    first = _stream(seed, "first").integers(0, actions, pairs)
    second = (first + _stream(seed, "second").integers(1, actions, pairs)) % actions
    margin = problem.rewards[context, first] - problem.rewards[context, second]
    first_wins = _stream(seed, "label").random(pairs) < 1 / (1 + np.exp(-margin))
    first_wins ^= _stream(seed, "flip").random(pairs) < flip_rate
    counts = np.zeros((contexts, actions, actions))
    np.add.at(counts, (context, np.where(first_wins, first, second), np.where(first_wins, second, first)), 1)
    chosen, rejected = ordered_pairs(actions).T
    return counts[:, chosen, rejected]


def ordered_pairs(actions: int) -> np.ndarray:
    """``[A (A-1), 2]``: every action as chosen with every other one as rejected.

    >>> ordered_pairs(3).tolist()
    [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    """
    return np.argwhere(~np.eye(actions, dtype=bool))


class Fit(NamedTuple):
    """Parameters ``[D]``, their loss without the ridge, and the norm of the last gradient, ridge included."""

    theta: Array
    loss: Array
    gradient_norm: Array


@functools.partial(jax.jit, static_argnames=("loss", "beta", "steps", "learning_rate", "ridge"))
def fit(
    features: Array,
    counts: Array,
    *,
    loss: Callable[..., Array],
    beta: float,
    steps: int,
    learning_rate: float,
    ridge: float,
) -> Fit:
    """Gradient descent from zero on ``loss + ridge / 2 |theta|^2``.

    The loss is called once on all ordered pairs of actions, and the mean over the data is the sum weighted by how
    often a pair was seen: the same number as one call on a row per datum, at a cost that does not grow with the data.

    Args:
      features: ``[S, A, D]``.
      counts: ``[S, A (A-1)]``, from :func:`preference_counts`.
      loss: a pairwise loss in the signature law, its method's keywords but ``beta`` already bound.
      beta: strength of the KL regularisation.
      steps: of gradient descent.
      learning_rate: of gradient descent.
      ridge: keeps losses finite that are unbounded below on the observed pairs.
    """
    weights, pairs = counts / counts.sum(), ordered_pairs(features.shape[1])

    def data_loss(theta: Array) -> Array:
        policy = log_policy(theta, features)[:, pairs]
        reference = log_policy(jnp.zeros_like(theta), features)[:, pairs]
        return loss(policy, reference, beta=beta, reduce=lambda units, where: jnp.sum(weights * units))

    def objective(theta: Array) -> Array:
        return data_loss(theta) + ridge / 2 * jnp.sum(jnp.square(theta))

    def step(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        gradient = jax.grad(objective)(carry[0])
        return carry[0] - learning_rate * gradient, gradient

    start = jnp.zeros(features.shape[-1], features.dtype)
    theta, gradient = jax.lax.fori_loop(0, steps, step, (start, start))
    return Fit(theta, data_loss(theta), jnp.linalg.norm(gradient))


def log_policy(theta: Array, features: Array) -> Array:
    """Log-probabilities of the actions, ``[S, A]``."""
    return jax.nn.log_softmax(features @ theta, -1)


def evaluate(problem: Problem, theta: np.ndarray, *, beta: float) -> dict[str, float]:
    """Exact expected reward, KL to the uniform reference (nats), and the relative error of the parameters."""
    logits = problem.features @ np.asarray(theta, np.float64)
    logs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    probabilities, best = np.exp(logs), problem.theta / beta
    return {
        "reward": float(np.mean(np.sum(probabilities * problem.rewards, -1))),
        "kl": float(np.mean(np.sum(probabilities * (logs + np.log(logs.shape[-1])), -1))),
        "parameter_error": float(np.linalg.norm(theta - best) / np.linalg.norm(problem.theta)),
    }


def bind(method: str, epsilon: float) -> Callable[..., Array]:
    """The loss of a catalogue name, with its flip rate bound where it takes one; one object per pair of arguments."""
    return _bind(method, epsilon if "epsilon" in rlx.method.keywords_of(getattr(rlx, method)) else None)


@functools.cache
def _bind(method: str, epsilon: float | None) -> Callable[..., Array]:
    function = getattr(rlx, method)
    return function if epsilon is None else functools.partial(function, epsilon=epsilon)


def _stream(seed: int, name: str) -> np.random.Generator:
    """A random stream of its own for every kind of number, so that none depends on how many others were drawn."""
    return np.random.default_rng([seed, *name.encode()])

"""Policies of experiments/adpo_noise.py: the losses compared, their training as one program per shape, evaluation."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx
from experiments.adpo_noise_bandit import stream
from rlx.types import Array

METHODS = ("dpo_noanchor", "dpo", "soft", "list_raw", "list_kde", "trpo", "ppo")
PREFERENCE, PAIRWISE, LISTWISE = METHODS[:5], METHODS[:3], METHODS[3:5]
LEARNERS = (*((m, "all") for m in PAIRWISE), *((m, "one") for m in PAIRWISE), *((m, "") for m in METHODS[3:]))
"""Every method, with the pairs that it sees of a list: all, one drawn anew each time, or none."""
PPO = LEARNERS.index(("ppo", ""))
Params = dict[str, tuple[Array, Array]]


class Lists(NamedTuple):
    """A batch of lists of K candidates.

    Attributes:
      policy: ``[B, K]`` log-probabilities.
      reference: ``[B, K]`` those of the anchor.
      old: ``[B, K]`` those of the policy at the start of the pass over the data; only `ppo` is given them.
      scores: ``[B, K]`` observed rewards, standardised.
      smoothed: ``[B, K]`` their CDF-logit smoothing.
      pair: ``[B]`` which one of all pairs the learners of one pair see.
    """

    policy: Array
    reference: Array
    old: Array
    scores: Array
    smoothed: Array
    pair: Array


Loss = Callable[[Lists, Array], Array]


def losses(tau: float, clip: float) -> list[Loss]:
    """The losses compared, ``(lists, temperature) -> scalar``, in the order of :data:`LEARNERS`.

    In a pair the better observed reward is the chosen one. The penalty of `trpo` is the target temperature: at
    ``tau = 1`` it then has the optimum of `list_raw`, reached along the other direction of KL.
    """

    def noanchor(seen: str, x: Lists, temperature: Array) -> Array:
        return rlx.dpo_reference_free(pairs(x.policy, x, seen), beta=1 / tau)

    def dpo(seen: str, x: Lists, temperature: Array) -> Array:
        return rlx.dpo(pairs(x.policy, x, seen), pairs(x.reference, x, seen), beta=1 / tau)

    def soft(seen: str, x: Lists, temperature: Array) -> Array:
        better, worse = jnp.moveaxis(pairs(x.scores, x, seen), -1, 0)
        label = jax.nn.sigmoid((better - worse) / temperature)
        return rlx.adpo_pairwise(pairs(x.policy, x, seen), pairs(x.reference, x, seen), label, tau=tau)

    def list_raw(x: Lists, temperature: Array) -> Array:
        return rlx.adpo_listwise(x.policy, x.reference, x.scores, tau=tau, beta_r=temperature)

    def list_kde(x: Lists, temperature: Array) -> Array:
        return rlx.adpo_listwise(x.policy, x.reference, x.smoothed, tau=tau, beta_r=temperature)

    def trpo(x: Lists, temperature: Array) -> Array:
        penalised = x.scores - temperature * (x.policy - x.reference)
        return -jnp.mean(jnp.sum(jnp.exp(x.policy) * penalised, -1))

    def ppo(x: Lists, temperature: Array) -> Array:
        old, ratio = jnp.exp(x.old), jnp.exp(x.policy - x.old)
        advantage = x.scores - jnp.sum(old * x.scores, -1, keepdims=True)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)
        return -jnp.mean(jnp.sum(old * gain, -1))

    pairwise = [functools.partial(loss, seen) for seen in ("all", "one") for loss in (noanchor, dpo, soft)]
    return [*pairwise, list_raw, list_kde, trpo, ppo]


def pairs(values: Array, lists: Lists, seen: str) -> Array:
    """Values ``[B, K]`` of the pairs seen of each list, ``[B, pairs, 2]``, the one with the larger score first."""
    ordered = chosen_first(values, lists.scores)
    return ordered if seen == "all" else jnp.take_along_axis(ordered, lists.pair[:, None, None], 1)


def chosen_first(values: Array, scores: Array) -> Array:
    """Values ``[..., K]`` of all pairs of a list, ``[..., K (K-1) / 2, 2]``, the one with the larger score first.

    >>> print(chosen_first(jnp.array([1, 2, 3]), jnp.array([0.1, 0.3, 0.2])))
    [[2 1]
     [3 1]
     [2 3]]
    """
    left, right = np.array([*itertools.combinations(range(values.shape[-1]), 2)]).T
    in_order = scores[..., left] >= scores[..., right]
    first, second = values[..., left], values[..., right]
    return jnp.stack([jnp.where(in_order, first, second), jnp.where(in_order, second, first)], -1)


def initial(seed: int, dimension: int, hidden: int, candidates: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two hidden layers: weights with variance 2 / inputs where a ReLU follows, 1 / inputs at the end; biases 0."""
    rng, widths = stream(seed, "policy"), (dimension, hidden, hidden, candidates)
    shapes = itertools.pairwise(widths)
    gains = (2.0, 2.0, 1.0)
    weights = [rng.standard_normal(shape) * np.sqrt(g / shape[0]) for shape, g in zip(shapes, gains, strict=True)]
    return {f"layer_{i}": (np.float32(w), np.zeros(w.shape[1], np.float32)) for i, w in enumerate(weights)}


def log_policy(params: Params, contexts: Array) -> Array:
    """Log-probabilities ``[..., K]`` of the candidates in contexts ``[..., D]``."""
    x = contexts
    for i in range(len(params)):
        weights, bias = params[f"layer_{i}"]
        x = (jax.nn.relu(x) if i else x) @ weights + bias
    return jax.nn.log_softmax(x, -1)


class Data(NamedTuple):
    """Arrays of one run.

    Attributes:
      contexts: ``[N, D]``.
      scores: ``[N, K]`` observed rewards, standardised.
      order: ``[passes, batches, B]`` contexts of every batch.
      pair: ``[passes, batches, B]`` the pair of candidates that learners of one pair see there.
      held_out: ``[M, D]`` contexts of evaluation.
    """

    contexts: Array
    scores: Array
    order: Array
    pair: Array
    held_out: Array


@functools.partial(jax.jit, static_argnames=("learning_rate", "weight_decay"))
def pretrain(
    params: Params, contexts: Array, best: Array, order: Array, *, learning_rate: float, weight_decay: float
) -> Params:
    """The reference policy: AdamW on the likelihood of the truly best candidate over batches ``[steps, B]``."""

    def loss(params: Params, index: Array) -> Array:
        logps = log_policy(params, contexts[index])
        return -jnp.mean(jnp.take_along_axis(logps, best[index][:, None], -1))

    optimizer = optax.adamw(learning_rate, weight_decay=weight_decay)
    return jax.lax.scan(_step(optimizer, loss), (params, optimizer.init(params)), order)[0][0]


@functools.partial(jax.jit, static_argnames=("tau", "clip", "learning_rate", "weight_decay"))
def train(
    references: Params,
    data: Data,
    runs: tuple[Array, Array],
    temperature: Array,
    *,
    tau: float,
    clip: float,
    learning_rate: float,
    weight_decay: float,
) -> Array:
    """Trains every run from its reference; returns held-out log-probabilities ``[runs, M, K]``.

    Args:
      references: parameters stacked over seeds.
      data: arrays stacked over seeds.
      runs: for each run the position of its seed, and of its method in :data:`LEARNERS`: two ``[runs]``.
      temperature: of the target.
      tau: temperature of the anchored policy.
      clip: PPO's range.
      learning_rate: of AdamW.
      weight_decay: of AdamW.
    """
    branches, optimizer = losses(tau, clip), optax.adamw(learning_rate, weight_decay=weight_decay)

    def one(run: tuple[Array, Array]) -> Array:
        reference, own = jax.tree.map(lambda x: x[run[0]], (references, data))
        anchor, smoothed = log_policy(reference, own.contexts), rlx.adpo_kde_advantage(own.scores)[..., 0]

        def loss(params: Params, batch: tuple[Array, Array], old: Array) -> Array:
            index, pair = batch
            policy = log_policy(params, own.contexts[index])
            lists = Lists(policy, *(x[index] for x in (anchor, old, own.scores, smoothed)), pair)
            return jax.lax.switch(run[1], branches, lists, temperature)

        def one_pass(state: Any, batches: tuple[Array, Array]) -> tuple[Any, None]:
            old = jax.lax.cond(run[1] == PPO, lambda: log_policy(state[0], own.contexts), lambda: anchor)
            return jax.lax.scan(_step(optimizer, lambda *args: loss(*args, old)), state, batches)[0], None

        start = reference, optimizer.init(reference)
        (trained, _), _ = jax.lax.scan(one_pass, start, (own.order, own.pair))
        return log_policy(trained, own.held_out)

    return jax.lax.map(one, runs)  # one by one: faster on a CPU than a batch of small matrix products


def _step(optimizer: optax.GradientTransformation, loss: Callable[[Params, Any], Array]) -> Callable[..., Any]:
    """A step of :func:`jax.lax.scan` over batches, on parameters and the optimizer's state."""

    def step(state: Any, batch: Any) -> tuple[Any, None]:
        params, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(params, batch), memory, params)
        return (optax.apply_updates(params, updates), memory), None

    return step


def measure(logps: np.ndarray, best: np.ndarray, bins: int = 10) -> dict[str, float]:
    """WinMass (the mass on the truly best candidate), accuracy of the mode, and the mode's calibration error.

    Args:
      logps: ``[M, K]`` log-probabilities.
      best: ``[M]`` truly best candidates.
      bins: of equal width in the mode's probability, for the expected calibration error.

    >>> measure(np.log([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]))
    {'win_mass': 0.5, 'accuracy': 0.5, 'calibration_error': 0.25}
    """
    probabilities = np.exp(np.asarray(logps, np.float64))
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == best
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(places, correct - confidence, bins)
    return {
        "win_mass": float(np.take_along_axis(probabilities, best[:, None], -1).mean()),
        "accuracy": float(correct.mean()),
        "calibration_error": float(np.abs(gaps).sum() / len(best)),
    }

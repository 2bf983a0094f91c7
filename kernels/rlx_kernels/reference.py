"""Naive statistics by autodiff over the whole logits: obvious, slow, the oracle of the tests."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rlx_kernels import core
from rlx_kernels.problem import Problem, logits_of


def log_softmax(z: jax.Array) -> jax.Array:
    """Log-probabilities; -inf logits stay -inf, and so does a whole row of them.

    >>> print(jnp.exp(log_softmax(jnp.array([0.0, -jnp.inf]))))
    [1. 0.]
    """
    possible = ~jnp.isneginf(z)
    m = jax.lax.stop_gradient(jnp.where(possible, z, -1e30).max(-1, keepdims=True))
    shifted = jnp.where(possible, z - m, 0)
    total = jnp.where(possible, jnp.exp(shifted), 0).sum(-1, keepdims=True)
    return jnp.where(possible, shifted - jnp.log(jnp.where(total == 0, 1, total)), -jnp.inf)


def statistics(
    z: jax.Array, targets: jax.Array, spec: core.Spec, y: Any = None, other: Any = None
) -> dict[str, jax.Array]:
    """The statistics of logits ``z [..., V]`` at ``targets [...]``; ``y`` and ``other`` logits are ``[..., V]`` too.

    >>> out = statistics(jnp.array([0.0, 0.0]), jnp.array(1), core.Spec(("entropy", "renyi2")))
    >>> print(f"{out['entropy']:.4f} {out['renyi2']:.4f}")
    0.6931 0.6931
    """
    logp = log_softmax(z)
    possible = ~jnp.isneginf(logp)
    some = possible.any(-1)
    p, safe_logp = jnp.where(possible, jnp.exp(logp), 0), jnp.where(possible, logp, 0)
    safe_z = jnp.where(possible, z, 0)
    mean, entropy = (p * safe_z).sum(-1), -(p * safe_logp).sum(-1)
    slopes = p * (safe_logp + entropy[..., None])
    power = jnp.where(possible, jnp.exp(spec.order * safe_logp), 0)
    chosen = jnp.take_along_axis(logp, targets[..., None], -1)[..., 0]
    change = (p * slopes).sum(-1) - jnp.take_along_axis(slopes, targets[..., None], -1)[..., 0]
    make = {
        "logp": lambda: chosen,
        "entropy": lambda: entropy,
        "lse": lambda: jnp.where(some, (p * (safe_z - safe_logp)).sum(-1), -jnp.inf),
        "mean": lambda: mean,
        "variance": lambda: (p * (safe_z - mean[..., None]) ** 2).sum(-1),
        "covariance": lambda: (slopes * (y - (p * y).sum(-1, keepdims=True))).sum(-1),
        "max_logp": lambda: logp.max(-1),
        "renyi2": lambda: -jnp.log(jnp.where(some, (p * p).sum(-1), 1)),
        "entropy_change": lambda: jnp.where(some, change, 0),
        "tsallis": lambda: jnp.where(some, (1 - power.sum(-1)) / (spec.order - 1), 0),
        "kl": lambda: divergence(other, z),
        "reverse_kl": lambda: divergence(z, other),
        "js": lambda: _jensen_shannon(z, other),
        "top_p_entropy": lambda: _entropy_where(z, in_nucleus(z, spec.top_p, spec.rule)),
        "top_k_entropy": lambda: _entropy_where(z, ranks(z) < spec.top_k),
    }
    return {name: make[name]() for name in spec.statistics}


def of_problem(problem: Problem, spec: core.Spec) -> dict[str, jax.Array]:
    """The statistics ``[N]`` of a problem."""
    z = logits_of(problem, problem.head, spec)
    other = None if problem.other is None else logits_of(problem, problem.other, spec)
    return statistics(z, problem.targets[:, 0], spec, problem.y, other)


def divergence(first: jax.Array, second: jax.Array) -> jax.Array:
    """``KL(first || second)`` of logits; tokens impossible under ``first`` add 0.

    >>> print(f"{divergence(jnp.array([0.0, -jnp.inf]), jnp.array([0.0, 0.0])):.4f}")
    0.6931
    """
    logp, logq = log_softmax(first), log_softmax(second)
    possible = ~jnp.isneginf(logp)
    gap = jnp.where(possible, logp, 0) - jnp.where(possible, logq, 0)
    return (jnp.where(possible, jnp.exp(logp), 0) * gap).sum(-1)


def _jensen_shannon(z: jax.Array, other: jax.Array) -> jax.Array:
    p, q = jnp.exp(log_softmax(z)), jnp.exp(log_softmax(other))
    middle = (p + q) / 2

    def half(p: jax.Array) -> jax.Array:
        ratio = jnp.where(p > 0, p, 1) / jnp.where(p > 0, middle, 1)
        return (p * jnp.log(ratio)).sum(-1) / 2

    return half(p) + half(q)


def ranks(z: jax.Array) -> jax.Array:
    """Rank of every token from the most probable, equal ones by index.

    >>> print(ranks(jnp.array([1.0, 2.0, 1.0])))
    [1 0 2]
    """
    order = jnp.argsort(-jax.lax.stop_gradient(z), axis=-1, stable=True)
    return jnp.argsort(order, axis=-1)


def in_nucleus(z: jax.Array, top_p: float, rule: str) -> jax.Array:
    """The nucleus by sorting; rules as in :data:`rlx_kernels.most_probable.RULES`.

    >>> print(in_nucleus(jnp.log(jnp.array([0.5, 0.375, 0.125])), 0.75, "crossing"))
    [ True  True False]
    """
    rank = ranks(z)
    p = jnp.exp(log_softmax(jax.lax.stop_gradient(z)))
    after = jnp.cumsum(jnp.take_along_axis(p, jnp.argsort(rank, axis=-1), -1), -1)
    before = jnp.concatenate([jnp.zeros_like(after[..., :1]), after[..., :-1]], -1)
    keep = {
        "crossing": before < top_p,
        "strict": after < top_p,
        "at_least_one": (after <= top_p) | (before == 0),
    }[rule]
    return jnp.take_along_axis(keep, rank, -1)


def _entropy_where(z: jax.Array, keep: jax.Array) -> jax.Array:
    logp = log_softmax(jnp.where(keep, z, -jnp.inf))
    safe = jnp.where(jnp.isneginf(logp), 0, logp)
    return -(jnp.where(jnp.isneginf(logp), 0, jnp.exp(safe)) * safe).sum(-1)

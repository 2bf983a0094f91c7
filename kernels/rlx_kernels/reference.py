"""Naive statistics by autodiff over the whole logits: obvious, slow, the oracle of the tests."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rlx_kernels import core


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


def statistics(z: jax.Array, targets: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """The statistics ``names`` of logits ``z [..., V]`` at ``targets [...]``.

    >>> out = statistics(jnp.array([0.0, 0.0]), jnp.array(1), ("entropy", "renyi2"))
    >>> print(f"{out['entropy']:.4f} {out['renyi2']:.4f}")
    0.6931 0.6931
    """
    logp = log_softmax(z)
    possible = ~jnp.isneginf(logp)
    some = possible.any(-1)
    p, safe_logp = jnp.where(possible, jnp.exp(logp), 0), jnp.where(possible, logp, 0)
    safe_z = jnp.where(possible, z, 0)
    mean = (p * safe_z).sum(-1)
    make = {
        "logp": lambda: jnp.take_along_axis(logp, targets[..., None], -1)[..., 0],
        "entropy": lambda: -(p * safe_logp).sum(-1),
        "lse": lambda: jnp.where(some, (p * (safe_z - safe_logp)).sum(-1), -jnp.inf),
        "mean": lambda: mean,
        "variance": lambda: (p * (safe_z - mean[..., None]) ** 2).sum(-1),
        "max_logp": lambda: logp.max(-1),
        "renyi2": lambda: -jnp.log(jnp.where(some, (p * p).sum(-1), 1)),
    }
    return {name: make[name]() for name in names}


def linear_statistics(
    x: jax.Array,
    w: jax.Array,
    bias: jax.Array | None,
    targets: jax.Array,
    names: tuple[str, ...],
    temperature: float = 1.0,
    softcap: float | None = None,
) -> dict[str, jax.Array]:
    """The statistics of ``transform(x @ w + bias)`` for ``x [N, D]``, ``w [D, V]``, ``targets [N]``."""
    raw = jnp.dot(x, w, preferred_element_type=core.accumulation_dtype(x.dtype))
    raw = raw if bias is None else raw + bias
    return statistics(core.transform(raw, temperature, softcap), targets, names)


def kl(z: jax.Array, other: jax.Array) -> jax.Array:
    """``KL(other || z) = sum_j p_other (log p_other - log p_z)``; tokens impossible under ``other`` add 0.

    >>> print(f"{kl(jnp.array([0.0, 0.0]), jnp.array([0.0, -jnp.inf])):.4f}")
    0.6931
    """
    logp, other_logp = log_softmax(z), log_softmax(other)
    possible = ~jnp.isneginf(other_logp)
    gap = jnp.where(possible, other_logp, 0) - jnp.where(possible, logp, 0)
    return (jnp.where(possible, jnp.exp(other_logp), 0) * gap).sum(-1)

"""Logits to probabilities, safe to multiply: the vocabulary on the last axis."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics


class Distribution(NamedTuple):
    """A next-token distribution, ``[..., V]`` each.

    Attributes:
        p: probabilities, 0 for impossible tokens.
        logp: their logarithms in nats, and 0 (not -inf) for impossible tokens, so that ``p * logp`` is finite.
        possible: which logits are not -inf.
    """

    p: jax.Array
    logp: jax.Array
    possible: jax.Array

    def mean(self, x: jax.Array) -> jax.Array:
        """Expectation of ``x [..., V]`` under ``p``; what ``x`` holds at impossible tokens does not matter."""
        return (self.p * jnp.where(self.possible, x, 0)).sum(-1)


def distribution(logits: jax.Array, *, where: jax.Array | None = None) -> Distribution:
    """The softmax of logits, accumulated in float32 at least; a common offset of a row costs no precision.

    Args:
        logits: ``[..., V]``; -inf marks impossible tokens. A row of -inf has probability 0 everywhere.
        where: bool ``[...]``; masked rows are uniform, whatever they hold, and receive no gradient.

    >>> print(distribution(jnp.array([1e4, 1e4, -jnp.inf])).p)
    [0.5 0.5 0. ]
    """
    from rlx_kernels import core, reference

    z = logits if where is None else jnp.where(where[..., None], logits, 0)
    logp = reference.log_softmax(z.astype(core.accumulation_dtype(z.dtype)))
    possible = ~jnp.isneginf(logp)
    safe = jnp.where(possible, logp, 0)
    return Distribution(jnp.where(possible, jnp.exp(safe), 0), safe, possible)


def from_top(logits: jax.Array) -> jax.Array:
    """Logits minus the largest of their row, so that dividing them by a temperature costs no precision.

    >>> print(from_top(jnp.array([4096.0, 4095.0, -jnp.inf])))
    [  0.  -1. -inf]
    """
    logits = numerics.accumulate(logits)
    top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    return logits - jnp.where(jnp.isneginf(top), 0, top)

"""The one shift between tokens and the positions that predict them.

The hidden state at position ``t`` predicts token ``t + 1``. Outside this module every array is token-aligned:
entry ``t`` speaks of token ``t``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def shift(x: jax.Array, *, fill) -> jax.Array:
    """Tokens to targets: ``targets[..., t] = x[..., t + 1]``, the last one is ``fill``.

    >>> print(shift(jnp.array([5, 6, 7]), fill=0))
    [6 7 0]
    """
    return jnp.concatenate([x[..., 1:], jnp.full_like(x[..., :1], fill)], axis=-1)


def unshift(x: jax.Array, *, fill=0) -> jax.Array:
    """Results of predicting positions to token alignment: ``y[..., t] = x[..., t - 1]``, the first one is ``fill``.

    >>> print(unshift(jnp.array([-1., -2., 0.])))
    [ 0. -1. -2.]
    """
    return jnp.concatenate([jnp.full_like(x[..., :1], fill), x[..., :-1]], axis=-1)


def predicting(hidden: jax.Array, start: int) -> jax.Array:
    """The hidden states ``[..., T - start, D]`` that predict the tokens from ``start`` on, of ``hidden [..., T, D]``.

    Only response positions need to pass through the vocabulary: with prompts of static length ``start``,
    ``linear_token_statistics(predicting(hidden, start), unembedding, tokens[..., start:])`` is already token-aligned.

    >>> print(predicting(jnp.arange(4.0)[:, None], 2)[:, 0])
    [1. 2.]
    """
    if not 1 <= start < hidden.shape[-2]:
        raise ValueError(f"start must be in 1..{hidden.shape[-2] - 1} (the first token has no prediction), not {start}")
    return hidden[..., start - 1 : -1, :]

"""Draws continuations from a policy: one loop of static shapes, a cache of keys and values, early exit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx.models.base import Decode, Model, Params, capped

BLOCK = 128  # of the vocabulary; the inverse of the distribution is looked up in two levels


class Continuations(NamedTuple):
    """What :func:`continuations` draws, N rows of at most M tokens."""

    tokens: jax.Array
    """``[N, M]``, ``fill`` after the end."""
    lengths: jax.Array
    """int32 ``[N]``, tokens drawn, the one that ended the row included."""
    finished: jax.Array
    """bool ``[N]``, False where M tokens were drawn without an end."""
    statistics: tuple[jax.Array, ...]
    """What ``choose`` says of the tokens, ``[N, M]`` each, 0 after the end."""


def continuations(
    decode: Decode,
    params: Params,
    tokens: jax.Array,
    valid: jax.Array,
    *,
    size: int,
    choose: Callable[[jax.Array, jax.Array], tuple[jax.Array, tuple[jax.Array, ...]]],
    ended: Callable[[jax.Array, jax.Array], jax.Array],
    group: int = 1,
    fill: int = 0,
    softcap: float | None = None,
) -> Continuations:
    """The loop of every sampler: continues each prompt ``group`` times, until all rows have ended.

    Args:
        decode: of the model (:func:`decoder`); the prompt is evaluated once for its group if it has ``fork``.
        params: of the model.
        tokens: int32 ``[P, L]``, padded on the left.
        valid: bool ``[P, L]``.
        size: M, tokens at most.
        choose: ``(i, logits [N, V]) -> (token [N], statistics [N] each)`` of step i; row ``p * group + k`` continues
            prompt p.
        ended: ``(i, drawn [M, N]) -> [N]``, whether the token of step i, the last one that is set, ends its row.
        group: K, continuations of each prompt; N = P K.
        fill: what stands after the end.
        softcap: of the logits, ``Model.softcap``.
    """
    if decode.fork is None:
        tokens, valid = (jnp.repeat(x, group, 0) for x in (tokens, valid))
    cache, hidden, unembedding = decode.prefill(params, tokens, valid, tokens.shape[1] + size)
    if decode.fork is not None and group > 1:
        cache, hidden = decode.fork(cache, group), jnp.repeat(hidden, group, 0)

    def logits_of(hidden):
        return capped(jnp.dot(hidden, unembedding, preferred_element_type=jnp.float32).astype(jnp.float32), softcap)

    def body(carry):
        i, cache, hidden, done, lengths, drawn, kept = carry
        token, statistics = choose(i, logits_of(hidden))
        token = jnp.where(done, fill, token).astype(drawn.dtype)
        kept = tuple(old.at[i].set(jnp.where(done, 0, new)) for old, new in zip(kept, statistics, strict=True))
        drawn, lengths = drawn.at[i].set(token), lengths + ~done
        done = done | ended(i, drawn)
        cache, hidden, _ = decode.step(params, cache, token)
        return i + 1, cache, hidden, done, lengths, drawn, kept

    rows, start = len(hidden), jnp.zeros((), jnp.int32)
    kept = jax.eval_shape(lambda hidden: choose(start, logits_of(hidden))[1], hidden)
    blank = jnp.full((size, rows), fill, tokens.dtype), tuple(jnp.zeros((size, *x.shape), x.dtype) for x in kept)
    carry = (start, cache, hidden, jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32), *blank)
    *_, done, lengths, drawn, kept = jax.lax.while_loop(lambda carry: (carry[0] < size) & ~carry[3].all(), body, carry)
    return Continuations(drawn.T, lengths, done, tuple(x.T for x in kept))


def chosen(logits: jax.Array, token: jax.Array) -> jax.Array:
    """The entries ``[N]`` of ``logits [N, V]`` at ``token [N]``."""
    return jnp.take_along_axis(logits, token[:, None], 1)[:, 0]


def invert(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Indices with probabilities in proportion to ``weights [N, V]``, one uniform number in [0, 1) for each row.

    The cumulative distribution is inverted in two levels, blocks first: no sort, no random number for each token.

    >>> print(invert(jnp.array([[1.0, 0.0, 3.0]] * 2), jnp.array([0.1, 0.3])))
    [0 2]
    """
    rows, vocab = weights.shape
    weights = jnp.pad(weights, ((0, 0), (0, -vocab % BLOCK))).reshape(rows, -1, BLOCK)
    sums = jnp.cumsum(weights.sum(-1), -1)
    block, rest = _first_above(sums, uniform * sums[:, -1])
    inside = jnp.cumsum(jnp.take_along_axis(weights, block[:, None, None], 1)[:, 0], -1)
    return block * BLOCK + _first_above(inside, rest)[0]


def _first_above(cumulative: jax.Array, level: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index whose cumulative weight exceeds ``level``, and what of ``level`` is left at its start.

    Rounding must not lead past the last index of positive weight, so the level stays below the total.
    """
    level = jnp.minimum(level, cumulative[:, -1] * (1 - 2**-20))
    index = jnp.argmax(cumulative > level[:, None], -1)
    before = jnp.where(index > 0, jnp.take_along_axis(cumulative, jnp.maximum(index - 1, 0)[:, None], 1)[:, 0], 0)
    return index, jnp.maximum(level - before, 0)


def decoder(model: Model) -> Decode:
    """The cached path of a model, or one that evaluates the whole sequence for each token."""
    return model.decode or _whole_sequence(model.apply)


@functools.cache
def _whole_sequence(apply: Any) -> Decode:
    """Decoding without a cache: every token evaluates all positions."""

    def hidden_at(params, tokens, valid, length):
        hidden, unembedding = apply(params, tokens, valid)
        return (tokens, valid, length), jax.lax.dynamic_index_in_dim(hidden, length - 1, 1, False), unembedding

    def prefill(params, tokens, valid, capacity):
        room = ((0, 0), (0, capacity - tokens.shape[1]))
        return hidden_at(params, jnp.pad(tokens, room), jnp.pad(valid, room), jnp.asarray(tokens.shape[1]))

    def step(params, cache, token):
        tokens, valid, length = cache
        return hidden_at(params, tokens.at[:, length].set(token), valid.at[:, length].set(True), length + 1)

    def fork(cache, group):
        tokens, valid, length = cache
        return jnp.repeat(tokens, group, 0), jnp.repeat(valid, group, 0), length

    return Decode(prefill, step, fork)

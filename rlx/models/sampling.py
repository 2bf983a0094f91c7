"""Draws continuations from a policy: one jitted loop of static shapes, a cache of keys and values, early exit."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from rlx.models.base import Decode, Model, Params

BLOCK = 128  # of the vocabulary; the inverse of the distribution is looked up in two levels


def sample(
    model: Model,
    params: Params,
    prompt_tokens: jax.Array,
    prompt_valid: jax.Array | None = None,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    eos_id: int | None = None,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Continues each prompt until ``eos_id`` or ``max_new_tokens``.

    Args:
        model: with ``decode`` None the whole sequence is evaluated for each token.
        params: of the model.
        prompt_tokens: int ``[N, P]``, padded on the left.
        prompt_valid: bool ``[N, P]``, by default all True; the last position must be a real token.
        max_new_tokens: M, how many tokens to draw at most.
        temperature: the logits are divided by it; 0 takes the most probable token.
        eos_id: ends a continuation; None: nothing does.
        key: of the random numbers.

    Returns:
        Tokens ``[N, M]``, the first ``eos_id`` included and repeated to the end, and their log-probabilities under the
        policy at temperature 1 ``[N, M]``, 0 after the first ``eos_id``.
    """
    if prompt_valid is None:
        prompt_valid = jnp.ones(prompt_tokens.shape, bool)
    decode = model.decode or _whole_sequence(model.apply)
    scale = jnp.asarray(temperature or 1.0, jnp.float32)
    prompt = (jnp.asarray(prompt_tokens), jnp.asarray(prompt_valid))
    greedy = isinstance(temperature, (int, float)) and temperature == 0
    return _loop(decode, max_new_tokens, greedy, eos_id, params, *prompt, scale, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _loop(decode: Decode, size: int, greedy: bool, eos_id: int | None, params, tokens, valid, temperature, key):
    rows, prompt = tokens.shape
    uniform = jax.random.uniform(key, (size, rows))

    def body(carry):
        i, cache, hidden, unembedding, done, out, logprobs = carry
        logits = jnp.dot(hidden, unembedding, preferred_element_type=jnp.float32).astype(jnp.float32)
        token = jnp.argmax(logits, -1) if greedy else draw(logits / temperature, uniform[i])
        token = token.astype(out.dtype)
        chosen = jnp.take_along_axis(logits, token[:, None], 1)[:, 0]
        logprob = jnp.where(done, 0, chosen - jax.nn.logsumexp(logits, -1))
        if eos_id is not None:
            token = jnp.where(done, eos_id, token)
            done = done | (token == eos_id)
        cache, hidden, unembedding = decode.step(params, cache, token)
        return i + 1, cache, hidden, unembedding, done, out.at[:, i].set(token), logprobs.at[:, i].set(logprob)

    cache, hidden, unembedding = decode.prefill(params, tokens, valid, prompt + size)
    fill = 0 if eos_id is None else eos_id
    blank = jnp.full((rows, size), fill, tokens.dtype), jnp.zeros((rows, size), jnp.float32)
    start = (jnp.zeros((), jnp.int32), cache, hidden, unembedding, jnp.zeros(rows, bool), *blank)
    end = jax.lax.while_loop(lambda carry: (carry[0] < size) & ~carry[4].all(), body, start)
    return end[5], end[6]


def draw(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Indices with probability ``softmax(logits [N, V])``, one uniform number in [0, 1) for each row.

    The cumulative distribution is inverted in two levels, blocks first: no sort, no random number for each token.

    >>> print(draw(jnp.log(jnp.array([[0.25, 0.0, 0.75]] * 3)), jnp.array([0.1, 0.3, 0.9])))
    [0 2 2]
    """
    rows, vocab = logits.shape
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
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

    return Decode(prefill, step)

"""Sampling from a policy, one token after the other, all rows in one compiled loop that ends when every row has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx.errors import UserError
from rlx.models.base import Decode, Model, Params


def sample(
    model: Model,
    params: Params,
    prompt_tokens: jax.Array,
    prompt_valid: jax.Array,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    eos_id: int | None = None,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Continues prompts.

    Args:
        model: the policy; with ``model.decode`` the keys and values of the past are kept, without it the whole
            sequence is evaluated for every token.
        params: its parameters.
        prompt_tokens: int32 ``[N, P]``, padded on the left.
        prompt_valid: bool ``[N, P]``, real tokens.
        max_new_tokens: R, length of the responses.
        temperature: divides the logits; 0 takes the most probable token.
        eos_id: ends a row; what follows is filled with it. None: every row has R tokens.
        key: random key.

    Returns:
        The tokens int32 ``[N, R]`` and their log-probabilities ``[N, R]`` under the policy at temperature 1, in nats;
        0 after the end of a row.

    Raises:
        UserError: the temperature is negative or nothing is to be sampled.
    """
    if temperature < 0:
        raise UserError(f"temperature must be at least 0, got {temperature}.")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
    run = _program(model, max_new_tokens, temperature == 0, -1 if eos_id is None else eos_id)
    tokens, valid = jnp.asarray(prompt_tokens, jnp.int32), jnp.asarray(prompt_valid, bool)
    return run(params, tokens, valid, jnp.float32(temperature or 1.0), key)


class _Loop(NamedTuple):
    step: jax.Array
    cache: Any
    hidden: jax.Array
    tokens: jax.Array
    logprobs: jax.Array
    done: jax.Array


@functools.lru_cache(maxsize=32)
def _program(model: Model, length: int, greedy: bool, eos_id: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    decode = model.decode or _by_whole_sequences(model)

    def run(params, prompt, valid, temperature, key):
        rows = prompt.shape[0]
        uniforms = jax.random.uniform(key, (length, rows))
        cache, hidden, unembedding = decode.prefill(params, prompt, valid, prompt.shape[1] + length)

        def body(loop: _Loop) -> _Loop:
            logits = (loop.hidden @ unembedding).astype(jnp.promote_types(loop.hidden.dtype, jnp.float32))
            chosen = logits.argmax(-1) if greedy else pick(logits / temperature, uniforms[loop.step])
            logprob = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], -1)[:, 0]
            chosen = jnp.where(loop.done, max(eos_id, 0), chosen).astype(jnp.int32)
            cache, hidden, _ = decode.step(params, loop.cache, chosen)
            return _Loop(
                loop.step + 1,
                cache,
                hidden,
                loop.tokens.at[:, loop.step].set(chosen),
                loop.logprobs.at[:, loop.step].set(jnp.where(loop.done, 0, logprob)),
                loop.done | (chosen == eos_id),
            )

        blank = jnp.full((rows, length), max(eos_id, 0), jnp.int32)
        kind = jnp.promote_types(hidden.dtype, jnp.float32)
        first = _Loop(jnp.int32(0), cache, hidden, blank, jnp.zeros((rows, length), kind), jnp.zeros(rows, bool))
        last = jax.lax.while_loop(lambda loop: (loop.step < length) & ~loop.done.all(), body, first)
        return last.tokens, last.logprobs

    return jax.jit(run)


def pick(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Tokens from ``softmax(logits [N, V])`` by inversion: one uniform number ``[N]`` a row.

    >>> print(pick(jnp.log(jnp.array([[0.25, 0.0, 0.75], [0.25, 0.0, 0.75]])), jnp.array([0.2, 0.3])))
    [0 2]
    """
    masses = jnp.exp(logits - logits.max(-1, keepdims=True))
    below = jnp.cumsum(masses, -1)
    # the last token with any mass bounds the choice, where rounding leaves the sum below the target
    last = logits.shape[-1] - 1 - jnp.argmax(masses[:, ::-1] > 0, axis=-1)
    return jnp.minimum((below <= uniform[:, None] * below[:, -1:]).sum(-1), last)


def _by_whole_sequences(model: Model) -> Decode:
    """The cache of a model without one: the tokens themselves, evaluated anew for every token."""

    def prefill(params, tokens, valid, capacity):
        room = ((0, 0), (0, capacity - tokens.shape[1]))
        hidden, unembedding = model.apply(params, tokens, valid)
        return (jnp.pad(tokens, room), jnp.pad(valid, room), tokens.shape[1]), hidden[:, -1], unembedding

    def step(params, cache, token):
        tokens, valid, length = cache
        tokens, valid = tokens.at[:, length].set(token), valid.at[:, length].set(True)
        hidden, unembedding = model.apply(params, tokens, valid)
        return (tokens, valid, length + 1), jax.lax.dynamic_index_in_dim(hidden, length, 1, False), unembedding

    return Decode(prefill, step)

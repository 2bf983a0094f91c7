"""Incremental evaluation of the transformer: keys and values of the past are kept, heads first, ``[L, B, G, S, d]``."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rlx.models.layers import causal_mask


class Cache(NamedTuple):
    """Keys and values ``[L, B, G, S, d]``, real tokens ``[B, S]``, slots used, real tokens seen ``[B]``."""

    keys: jax.Array
    values: jax.Array
    valid: jax.Array
    length: jax.Array
    seen: jax.Array


def _blocks(model) -> list:
    c = model.config
    if not c.scan_layers:
        return [model.layers[str(i)] for i in range(c.num_layers)]
    graph, state = nnx.split(model.layers)
    return [nnx.merge(graph, jax.tree.map(operator.itemgetter(i), state)) for i in range(c.num_layers)]


def prefill(module: Callable, params, tokens: jax.Array, valid: jax.Array | None, capacity: int):
    """Evaluates the prompt; see ``rlx.models.Decode``."""
    model = module(params)
    valid = jnp.ones(tokens.shape, bool) if valid is None else valid
    mask, positions = causal_mask(tokens.shape, valid)
    rope, x = model.rope(positions), model.embed(tokens)
    keys, values = [], []
    room = ((0, 0), (0, 0), (0, capacity - tokens.shape[1]), (0, 0))
    for block in _blocks(model):
        x, k, v = block.keep(x, rope, mask, tokens.shape)
        keys.append(jnp.pad(k, room))
        values.append(jnp.pad(v, room))
    slots = jnp.pad(valid, ((0, 0), (0, capacity - tokens.shape[1])))
    length = jnp.asarray(tokens.shape[1])
    cache = Cache(jnp.stack(keys), jnp.stack(values), slots, length, valid.sum(-1))
    last = x.reshape(*tokens.shape, -1)[:, -1]
    return cache, model.final_norm(last), model.output_matrix()


def step(module: Callable, params, cache: Cache, token: jax.Array):
    """Appends one token to every row; see ``rlx.models.Decode``."""
    model = module(params)
    rows = (token.shape[0], 1)
    rope, x = model.rope(cache.seen[:, None]), model.embed(token)
    valid = cache.valid.at[:, cache.length].set(True)
    keys, values = cache.keys, cache.values
    for i, block in enumerate(_blocks(model)):
        q, k, v = block.attention.project(block.attention_norm(x), rope, rows)
        start = (i, 0, 0, cache.length, 0)
        keys = jax.lax.dynamic_update_slice(keys, k[None], start)
        values = jax.lax.dynamic_update_slice(values, v[None], start)
        x = x + block.attention.mix(q, keys[i], values[i], valid[:, None])
        x = x + block.mlp(block.mlp_norm(x))
    cache = Cache(keys, values, valid, cache.length + 1, cache.seen + 1)
    return cache, model.final_norm(x), model.output_matrix()

"""Incremental evaluation of the transformer: keys and values of the past are kept, heads first, ``[B, G, S, d]``.

The prompt's keys and values stand apart from those of the tokens that follow, so that a group of continuations reads
one copy of its prompt.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rlx.models.base import capped
from rlx.models.layers import causal_mask, score_bias, wide, within


class Cache(NamedTuple):
    """What P prompts and ``N = P * K`` continuations, prompt by prompt, have left in every layer.

    Attributes:
        prompt_keys: of each layer ``[P, G, L, d]``.
        prompt_values: of each layer ``[P, G, L, d]``.
        prompt_valid: bool ``[P, L]``.
        keys: of each layer ``[N, G, M, d]``, those of the continuations.
        values: of each layer ``[N, G, M, d]``.
        length: of the M slots, how many are used.
        seen: real tokens so far, ``[N]``.
    """

    prompt_keys: tuple[jax.Array, ...]
    prompt_values: tuple[jax.Array, ...]
    prompt_valid: jax.Array
    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
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
    positions = causal_mask(tokens.shape, valid)[1]
    contexts = model.contexts(positions, lambda window: causal_mask(tokens.shape, valid, window)[0])
    x, keys, values = model.embed(tokens), [], []
    for block, window in zip(_blocks(model), model.config.windows, strict=True):
        x, k, v = block.keep(x, *contexts[window], tokens.shape)
        keys.append(k)
        values.append(v)
    room = _room(keys, 1, capacity - tokens.shape[1])
    cache = Cache(tuple(keys), tuple(values), valid, room, room, jnp.zeros((), jnp.int32), valid.sum(-1))
    last = x.reshape(*tokens.shape, -1)[:, -1]
    return cache, model.final_norm(last), model.output_matrix()


def _room(keys, group: int, slots: int) -> tuple[jax.Array, ...]:
    rows = (len(keys[0]) * group, keys[0].shape[1], slots, keys[0].shape[3])
    return tuple(jnp.zeros(rows, k.dtype) for k in keys)


def fork(cache: Cache, group: int) -> Cache:
    """The cache of ``group`` continuations of every prompt; see ``rlx.models.Decode``."""
    room = _room(cache.prompt_keys, group, cache.keys[0].shape[2])
    return cache._replace(keys=room, values=room, seen=jnp.repeat(cache.seen, group))


def step(module: Callable, params, cache: Cache, token: jax.Array):
    """Appends one token to every row; see ``rlx.models.Decode``."""
    model = module(params)
    contexts = model.contexts(cache.seen[:, None], functools.partial(_visible, cache))
    x, softcap = model.embed(token), model.config.attention_softcap
    keys, values = list(cache.keys), list(cache.values)
    for i, (block, window) in enumerate(zip(_blocks(model), model.config.windows, strict=True)):
        rope, (seen, used) = contexts[window]
        q, k, v = block.attention.project(block.attention_norm(x), rope, (len(token), 1))
        keys[i] = jax.lax.dynamic_update_slice_in_dim(keys[i], k, cache.length, 2)
        values[i] = jax.lax.dynamic_update_slice_in_dim(values[i], v, cache.length, 2)
        prompt = cache.prompt_keys[i], cache.prompt_values[i], seen
        look = functools.partial(_attend, prompt=prompt, used=used, softcap=softcap)
        x = block.join(x, block.attention.mix(q, keys[i], values[i], look))
    cache = cache._replace(keys=tuple(keys), values=tuple(values), length=cache.length + 1, seen=cache.seen + 1)
    return cache, model.final_norm(x), model.output_matrix()


def _visible(cache: Cache, window: int) -> tuple[jax.Array, jax.Array]:
    """Which tokens of the prompt, ``[P, L]``, and which slots, ``[M]``, the next token sees."""
    slots = jnp.arange(cache.keys[0].shape[2])
    used, valid = slots <= cache.length, cache.prompt_valid
    if not window:
        return valid, used
    now = cache.seen[:: len(cache.seen) // len(valid)]  # the continuations of a prompt advance together
    near = within(window, now[:, None], jnp.cumsum(valid, -1) - 1)[:, 0]
    return valid & near, used & within(window, cache.length[None], slots)[0]


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, *, prompt: tuple, used: jax.Array, softcap: float) -> jax.Array:
    """One query of each continuation, ``[N, H, 1, d]``, meets its prompt and its own past under one softmax.

    The queries of a group and of a key head are the rows of one product with the prompt's keys.
    """
    rows, heads, _, d = q.shape
    far_k, far_v, seen = prompt
    count, groups = far_k.shape[:2]
    group, share, kind = rows // count, heads // groups, wide(q.dtype)
    product = functools.partial(jnp.einsum, preferred_element_type=kind)
    q = q.reshape(rows, groups, share, d)

    def of_prompt(x):  # [N, G, share, X] -> [P, G, K * share, X]
        return x.reshape(count, group, groups, share, -1).swapaxes(1, 2).reshape(count, groups, group * share, -1)

    def of_rows(x):
        return x.reshape(count, groups, group, share, -1).swapaxes(1, 2).reshape(rows, groups, share, -1)

    far = capped(product("pgqd,pgsd->pgqs", of_prompt(q), far_k), softcap) + score_bias(seen, kind)[:, None, None]
    near = capped(product("ngqd,ngsd->ngqs", q, k), softcap) + score_bias(used, kind)
    top = jnp.maximum(of_rows(far.max(-1, keepdims=True)), near.max(-1, keepdims=True))
    far, near = jnp.exp(far - of_prompt(top)), jnp.exp(near - top)
    total = of_rows(far.sum(-1, keepdims=True)) + near.sum(-1, keepdims=True)
    far, near = far.astype(v.dtype), near.astype(v.dtype)
    out = of_rows(product("pgqs,pgsd->pgqd", far, far_v)) + product("ngqs,ngsd->ngqd", near, v)
    return (out / total).astype(v.dtype).reshape(rows, heads, 1, d)

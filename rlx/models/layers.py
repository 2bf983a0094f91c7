"""Building blocks of the decoder as nnx modules on flattened tokens ``[N, D]``; only attention sees ``[B, T, H, d]``.

Weights are declared as zeros (shapes only: the modules are built under ``nnx.eval_shape``) with the logical name
of every axis in the metadata, from which ``transformer.partition`` derives the sharding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rlx.models import axes
from rlx.models.base import capped
from rlx.models.lora import LowRank
from rlx.models.rope import RopeScaling
from rlx.ops.product import weight_product

ACTIVATIONS = {"silu": jax.nn.silu, "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True)}


def wide(dtype) -> jnp.dtype:
    """Type of statistics over activations: at least float32.

    >>> print(wide(jnp.bfloat16), wide(jnp.float32))
    float32 float32
    """
    return jnp.promote_types(dtype, jnp.float32)


class Weights:
    """Declares parameters: stacks them over layers, stores them in ``param_dtype``, computes in ``dtype``."""

    def __init__(self, dtype: str, param_dtype: str, stack: tuple[int, ...] = ()):
        self.dtype, self.param_dtype, self.stack = dtype, param_dtype, stack

    def __call__(self, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> nnx.Param:
        names = (None,) * len(self.stack) + axes
        return nnx.Param(jnp.zeros(self.stack + shape, self.param_dtype), axes=names)


class Linear(nnx.Module):
    """``[N, I] -> [N, O]``, the axes named for sharding; ``lora`` is an adapter of the kernel, where it has one."""

    lora: LowRank | None

    def __init__(self, weights: Weights, shape: tuple[int, int], axes: tuple, bias: bool = False):
        self.dtype = weights.dtype
        self.kernel = weights(shape, axes)
        self.bias = weights(shape[1:], axes[1:]) if bias else None
        self.lora = None

    def factors(self) -> tuple[jax.Array, Any]:
        """The kernel and, where there is an adapter, its A and B, in the type of the computation."""
        return self.kernel[...].astype(self.dtype), None if self.lora is None else self.lora.factors()

    def product(self, x: jax.Array, factors: tuple[jax.Array, Any]) -> jax.Array:
        """``x W``, and what the adapter adds to it."""
        y = weight_product(x, factors[0])
        return y if self.lora is None else y + self.lora.product(x, factors[1])

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.product(x, self.factors())
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class RMSNorm(nnx.Module):
    """``x / rms(x) * scale`` with the mean of squares in at least float32; ``offset`` is added to the stored scale."""

    def __init__(self, weights: Weights, size: int, eps: float, offset: float = 0.0):
        self.dtype, self.eps, self.offset = weights.dtype, eps, offset
        self.scale = weights((size,), (None,))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(wide(self.dtype))
        x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + self.eps)
        scale = self.scale[...]
        return (x * (scale.astype(x.dtype) + self.offset if self.offset else scale)).astype(self.dtype)


def rotary_tables(
    positions: jax.Array, head_dim: int, theta: float, dtype, scaling: RopeScaling | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines ``[..., 1, T, head_dim / 2]`` of the rotary embedding at ``positions [..., T]``."""
    kind = wide(dtype)
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=kind) / head_dim)
    frequencies = frequencies if scaling is None else scaling(frequencies)
    angles = positions[..., None, :, None].astype(kind) * frequencies
    return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate the half-split pairs of ``x [..., H, T, d]`` (the convention of Llama and Qwen checkpoints)."""
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def within(window: int, queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Whether keys at positions ``[..., S]`` are in the sliding window of queries at ``[..., T]``: ``[..., T, S]``.

    >>> print(within(2, jnp.arange(3), jnp.arange(3))[2])
    [False  True  True]
    """
    return queries[..., :, None] - keys[..., None, :] < window


def causal_mask(shape: tuple[int, ...], valid: jax.Array | None, window: int = 0) -> tuple[jax.Array, jax.Array]:
    """Which keys each query sees, ``[N | 1, T, T]``, and the positions ``[N | 1, T]``: real tokens count from 0.

    A query sees itself and the ``window - 1`` real tokens before it; all of them where ``window`` is 0.

    >>> mask, positions = causal_mask((1, 3), jnp.array([[False, True, True]]))
    >>> print(positions, mask[0, 2])
    [[0 0 1]] [False  True  True]
    """
    steps = jnp.arange(shape[1])
    causal = steps[None, :, None] >= steps[None, None, :]
    if valid is None:
        mask, positions = causal, steps[None]
    else:
        mask, positions = causal & valid[:, None, :], jnp.maximum(jnp.cumsum(valid, axis=-1) - 1, 0)
    return (mask & within(window, positions, positions) if window else mask), positions


def score_bias(mask: jax.Array, dtype) -> jax.Array:
    """What is added to the scores: 0 where ``mask`` is True, else so little that the score vanishes against it.

    Added instead of selected: the gradient of a sum is free.
    """
    return jnp.where(mask, jnp.zeros((), dtype), jnp.asarray(-1e30, dtype))


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, softcap: float = 0.0) -> jax.Array:
    """Grouped-query attention of scaled queries, heads first, ``[B, H, T, d]``.

    The queries that share a key head are the rows of one product. The softmax divides after the product with ``v``:
    ``T * d`` instead of ``T * S`` divisions. A row without any key (``mask`` all False) averages all values: finite,
    and never read by a real token.

    Args:
        q: ``[B, H, T, d]``, already divided by ``sqrt(d)``.
        k: ``[B, G, S, d]``, ``H`` a multiple of ``G``.
        v: ``[B, G, S, d]``.
        mask: bool ``[B | 1, T, S]``, True where query ``t`` may see key ``s``.
        softcap: see :func:`capped`.
    """
    b, h, t, d = q.shape
    groups, keys = k.shape[1:3]
    kind = wide(q.dtype)
    bias = score_bias(mask, kind)[:, None, None]
    scores = jnp.einsum("bgqd,bgsd->bgqs", q.reshape(b, groups, -1, d), k, preferred_element_type=kind)
    scores = capped(scores, softcap).reshape(b, groups, h // groups, t, keys) + bias
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1).reshape(b, groups, -1, 1)
    weights = weights.astype(v.dtype).reshape(b, groups, -1, keys)
    out = jnp.einsum("bgqs,bgsd->bgqd", weights, v, preferred_element_type=kind) / total
    return out.astype(v.dtype).reshape(b, h, t, d)


def attend_in_blocks(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, softcap: float = 0.0, *, block: int
) -> jax.Array:
    """:func:`attend` for a ``mask`` that is causal in the order of the positions, ``block`` queries at a time.

    A block meets the keys up to its own end, and its scores are formed again in the backward pass.
    """
    length, part = q.shape[2], jax.checkpoint(functools.partial(attend, softcap=softcap))
    ends = [(start, min(start + block, length)) for start in range(0, length, block)]
    outs = (part(q[:, :, i:j], k[:, :, :j], v[:, :, :j], mask[:, i:j, :j]) for i, j in ends)
    return jnp.concatenate([*outs], axis=2)


class Attention(nnx.Module):
    """Projections of grouped-query attention with rotary positions; query, key and value are separate products.

    ``c`` is the :class:`rlx.models.transformer.Config`.
    """

    def __init__(self, weights: Weights, c: Any):
        self.head_dim, self.softcap, self.block = c.head_dim, c.attention_softcap, c.attention_block
        self.scale = (c.query_scalar or c.head_dim) ** -0.5
        width, kv_width, bias = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.qkv_bias
        self.query = Linear(weights, (c.hidden_size, width), ("embed", "heads"), bias)
        self.key = Linear(weights, (c.hidden_size, kv_width), ("embed", "kv_heads"), bias)
        self.value = Linear(weights, (c.hidden_size, kv_width), ("embed", "kv_heads"), bias)
        self.output = Linear(weights, (width, c.hidden_size), ("heads", "embed"))
        norm = functools.partial(RMSNorm, weights, c.head_dim, c.norm_eps, c.norm_offset)
        self.query_norm, self.key_norm = (norm(), norm()) if c.qk_norm else (None, None)

    def project(self, x: jax.Array, rope: tuple[jax.Array, jax.Array], rows: tuple[int, int]):
        """Scaled queries, keys and values, heads first, of ``x [B * T, D]``; ``rows`` is ``(B, T)``."""

        def heads_first(y):
            return y.reshape(*rows, -1, self.head_dim).swapaxes(1, 2)

        if self.query_norm is None or self.key_norm is None:
            q, k = heads_first(self.query(x) * self.scale), heads_first(self.key(x))
        else:
            q = self.query_norm(heads_first(self.query(x))) * self.scale
            k = self.key_norm(heads_first(self.key(x)))
        v = heads_first(self.value(x))
        q = axes.constrain(rotate(q, *rope), ("batch", "heads", "length", None))
        k, v = (axes.constrain(y, ("batch", "kv_heads", "keys", None)) for y in (rotate(k, *rope), v))
        return q, k, v

    def mix(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | Callable) -> jax.Array:
        """Attention and the output projection, laid out as ``x`` was; a function as ``mask`` attends in the place of
        ``attend``: ``mask(q, k, v) -> [B, H, T, d]``."""
        b, h, t, d = q.shape
        if callable(mask):
            out = mask(q, k, v)
        elif self.block and not axes.splits_length():
            out = attend_in_blocks(q, k, v, mask, self.softcap, block=self.block)
        else:
            out = attend(q, k, v, mask, self.softcap)
        return self.output(axes.activation(out.swapaxes(1, 2).reshape(*axes.leading(b, t), h * d), "heads"))


class SwiGLU(nnx.Module):
    """``down(f(gate x) * up x)`` with separate gate and up products; ``f`` is silu, or one of ``ACTIVATIONS``."""

    def __init__(self, weights: Weights, hidden_size: int, intermediate_size: int, activation: str = "silu"):
        self.activation = activation
        self.gate = Linear(weights, (hidden_size, intermediate_size), ("embed", "ffn"))
        self.up = Linear(weights, (hidden_size, intermediate_size), ("embed", "ffn"))
        self.down = Linear(weights, (intermediate_size, hidden_size), ("ffn", "embed"))

    def __call__(self, x: jax.Array) -> jax.Array:
        activation = ACTIVATIONS[self.activation]
        # Of four wide arrays only gate and up are kept; their product is cheap to form again.
        down = jax.checkpoint(lambda gate, up, factors: self.down.product(activation(gate) * up, factors))
        gate, up = (axes.activation(y, "ffn") for y in (self.gate(x), self.up(x)))
        return down(gate, up, self.down.factors())

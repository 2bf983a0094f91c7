"""The product of activations and weights, with a gradient of the weights that runs at the full rate of a CPU."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


def weight_product(x: jax.Array, w: jax.Array) -> jax.Array:
    """``x @ w`` for ``x [N, I]``, or ``[..., I]``, and ``w [I, O]``, differentiable in both.

    On a CPU the gradient ``x.T @ g`` contracts over the slow axis of both factors and reaches half of the rate of the
    forward product. Transposing the gradient first, and keeping XLA from folding the transposition back into the
    product, gives the full rate (40 to 64 against 67 to 79 GFLOP/s for the shapes of a small decoder on one AVX2
    core). Other platforms, and other ranks, keep the plain product.

    >>> print(weight_product(jnp.ones((1, 2)), jnp.eye(2)))
    [[1. 1.]]
    """
    if jax.default_backend() != "cpu" or x.ndim != 2:
        return x @ w
    return _product(x, vary(w, x))


def vary(value: jax.Array, x: jax.Array) -> jax.Array:
    """``value``, inside a ``shard_map`` typed as varying over the mapped axes that ``x`` varies over.

    The gradient of a value that all devices share is a sum over devices; a hand-written gradient knows only its own
    device, and this is the place where the sum enters. A select is typed as varying wherever an operand is, under
    every version of jax; XLA folds it away.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return value
    return jnp.where(True, value, x.sum(dtype=value.dtype))


@jax.custom_vjp
def _product(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w


def _forward(x, w):
    return x @ w, (x, w)


def _backward(residuals, g):
    x, w = residuals
    keep = jax.lax.optimization_barrier
    wide = functools.partial(jnp.dot, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
    dw = keep(wide(keep(g.T), x)).T
    return g @ w.T, dw.astype(w.dtype)


_product.defvjp(_forward, _backward)

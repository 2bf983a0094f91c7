"""Constants of a token loss: what multiplies it, cleaned before the product so that nothing masked reaches a gradient.

Tokens stand on the last axis ``[..., T]``; leading axes are the batch.
"""

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.types import Array


def constant(x: Array, where: Array | None = None, fill: float = 0.0) -> Array:
    """``x`` without gradient in the accumulation type, ``fill`` where masked; broadcasts to ``where``.

    >>> print(constant(jnp.array([[jnp.nan], [2.0]]), jnp.array([[False, False], [True, False]])))
    [[0. 0.]
     [2. 0.]]
    """
    return numerics.clean(jax.lax.stop_gradient(numerics.accumulate(x)), where, fill)


def weigh(loss: Array, weights: Array | None, where: Array | None = None) -> Array:
    """``w_t * loss_t`` with constant weights ``[..., T]`` (or ``[..., 1]``); ``None`` weighs nothing.

    >>> print(weigh(jnp.array([1.0, 3.0]), jnp.array([0.5, jnp.inf]), jnp.array([True, False])))
    [0.5 3. ]
    """
    return loss if weights is None else constant(weights, where, 1.0) * loss


def largest(x: Array, where: Array | None = None, axis_name: numerics.AxisName = None) -> Array:
    """The largest selected entry over all shards, 0 of nothing; without gradient.

    >>> print(largest(jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])))
    3.0
    """
    peak = constant(x, where, -jnp.inf).max(initial=-jnp.inf)
    peak = peak if axis_name is None else jax.lax.pmax(peak, axis_name)
    return jnp.where(jnp.isneginf(peak), 0, peak)


def smallest(x: Array, where: Array | None = None, axis_name: numerics.AxisName = None) -> Array:
    """The smallest selected entry over all shards, 0 of nothing; without gradient."""
    return -largest(-x, where, axis_name)

"""Geometry of embeddings on the last axis ``[..., E]``, with gradients that stay finite at 0 and at coincidence."""

import jax
import jax.numpy as jnp

from rlx.types import Array


def norm(x: Array) -> Array:
    """Euclidean norm ``[..., E] -> [...]``, with gradient 0 at 0.

    >>> print(norm(jnp.array([3.0, 4.0])))
    5.0
    """
    # scaled by the largest entry, so that squares neither overflow nor vanish; the result does not depend on the scale
    scale = jax.lax.stop_gradient(jnp.abs(x).max(-1, keepdims=True))
    nonzero = scale > 0
    safe = jnp.where(nonzero, x / jnp.where(nonzero, scale, 1), 1)
    return jnp.where(nonzero, scale * jnp.sqrt(jnp.square(safe).sum(-1, keepdims=True)), 0)[..., 0]


def unit(x: Array) -> Array:
    """``x / |x|``, and 0 where x is 0.

    >>> print(unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
    [[0.6 0.8]
     [0.  0. ]]
    """
    length = norm(x)[..., None]
    return jnp.where(length > 0, x / jnp.where(length > 0, length, 1), 0)


def distance(x: Array, y: Array) -> Array:
    """``|x - y|``, with gradient 0 where the points coincide."""
    return norm(x - y)


def cosine(x: Array, y: Array) -> Array:
    """Cosine of the angle between two vectors, 0 where one of them is 0."""
    return (unit(x) * unit(y)).sum(-1)

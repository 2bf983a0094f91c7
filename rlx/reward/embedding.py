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


def unit(x: Array, *, epsilon: float = 1e-8) -> Array:
    """``x / |x|``; a length below ``epsilon`` counts as that, so that 0 stays 0 and no slope exceeds 1/epsilon.

    >>> print(unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
    [[0.6 0.8]
     [0.  0. ]]
    """
    length = norm(x)[..., None]
    return x / jnp.where(length > epsilon, length, epsilon)


def distance(x: Array, y: Array) -> Array:
    """``|x - y|``, with gradient 0 where the points coincide."""
    return norm(x - y)


def cosine(x: Array, y: Array) -> Array:
    """Cosine of the angle between two vectors, 0 where one of them is 0."""
    return (unit(x) * unit(y)).sum(-1)

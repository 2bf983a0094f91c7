"""Links: the loss of a margin ``[...]`` when the stated preference is right."""

import jax
import jax.numpy as jnp

from rlx.types import Array


def logistic(margin: Array) -> Array:
    r""":math:`-\log\sigma(m)`, evaluated as a softplus."""
    return -jax.nn.log_sigmoid(margin)


def hinge(margin: Array) -> Array:
    r""":math:`\max(0, 1 - m)`, slope 0 at the kink."""
    return jnp.where(margin < 1, 1 - margin, 0)


def squared(target: float):
    r""":math:`(m - t)^2`."""
    return lambda margin: jnp.square(margin - target)

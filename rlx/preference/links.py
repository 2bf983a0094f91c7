"""Links: the loss of a margin ``[...]`` when the stated preference is right."""

import jax
import jax.numpy as jnp

from rlx.types import Array, Link


def logistic(margin: Array) -> Array:
    r""":math:`-\log\sigma(m)`, evaluated as a softplus.

    >>> print(f"{logistic(0.0):.4f}")
    0.6931
    """
    return -jax.nn.log_sigmoid(margin)


def sigmoid(margin: Array) -> Array:
    r""":math:`1 - \sigma(m)`, evaluated as :math:`\sigma(-m)`, which keeps its digits where the sum cancels.

    >>> print(f"{sigmoid(0.0):.1f}")
    0.5
    """
    return jax.nn.sigmoid(-margin)


def hinge(margin: Array) -> Array:
    r""":math:`\max(0, 1 - m)`, slope 0 at the kink.

    >>> print(hinge(jnp.array([0.5, 1.0, 2.0])))
    [0.5 0.  0. ]
    """
    return jnp.where(margin < 1, 1 - margin, 0)


def squared(target: float) -> Link:
    r""":math:`(m - t)^2`.

    >>> squared(2.0)(5.0)
    Array(9., dtype=float32, weak_type=True)
    """
    return lambda margin: jnp.square(margin - target)

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


def regression(target: float) -> Link:
    r""":math:`(m - t)^2/2`: a margin is asked to be t.

    >>> print(regression(10.0)(8.0))
    2.0
    """
    return lambda margin: jnp.square(margin - target) / 2


def smooth_hinge(gamma: float) -> Link:
    r"""The hinge with a quadratic over its first gamma: for :math:`u = 1 - m`, 0, :math:`u^2/2\gamma`, :math:`u-\gamma/2`.

    >>> print(smooth_hinge(2.0)(jnp.array([2.0, 0.0, -4.0])))
    [0.   0.25 4.  ]
    """

    def link(margin: Array) -> Array:
        short = jnp.where(margin < 1, 1 - margin, 0)
        return jnp.where(short < gamma, jnp.square(jnp.minimum(short, gamma)) / (2 * gamma), short - gamma / 2)

    return link

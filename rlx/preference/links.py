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
    r"""A hinge with a quadratic over its first gamma: for :math:`u = 1 - m` 0, :math:`u^2/2\gamma`, :math:`u-\gamma/2`.

    >>> print(smooth_hinge(2.0)(jnp.array([2.0, 0.0, -4.0])))
    [0.   0.25 4.  ]
    """

    def link(margin: Array) -> Array:
        short = jnp.where(margin < 1, 1 - margin, 0)
        return jnp.where(short < gamma, jnp.square(jnp.minimum(short, gamma)) / (2 * gamma), short - gamma / 2)

    return link


def linear(margin: Array) -> Array:
    r""":math:`-m`: on a log-probability, its negative log-likelihood.

    >>> print(linear(jnp.array(-2.0)))
    2.0
    """
    return -margin


def reverse_kl(epsilon: float) -> Link:
    r""":math:`\mathrm{KL}\left((\sigma(m), \sigma(-m))\,\|\,(1-\epsilon, \epsilon)\right)`: bounded, not convex.

    >>> print(f"{reverse_kl(0.5)(0.0):.4f} {reverse_kl(0.1)(jnp.log(9.0)):.4f}")
    0.0000 0.0000
    """

    def link(margin: Array) -> Array:
        right = jax.nn.sigmoid(margin) * (jax.nn.log_sigmoid(margin) - jnp.log1p(-epsilon))
        return right + jax.nn.sigmoid(-margin) * (jax.nn.log_sigmoid(-margin) - jnp.log(epsilon))

    return link


def modulated(tau: float) -> Link:
    r""":math:`(1-a)\,(-\log\sigma(m)) + a\,e^{-m}` with :math:`a = \sigma(m/\tau)`: one loss left of 0, another right.

    >>> print(f"{modulated(0.05)(0.0):.4f}")
    0.8466
    """

    def link(margin: Array) -> Array:
        exponential = jnp.exp(jax.nn.log_sigmoid(margin / tau) - margin)  # one exponent: a * exp(-m) would be 0 * inf
        return jax.nn.sigmoid(-margin / tau) * logistic(margin) + exponential

    return link

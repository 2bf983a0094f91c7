"""Label models: each is one number q per pair, ``q * link(m) + (1 - q) * link(-m)``.

Shapes are those of the margin, ``[...]``; a plain number broadcasts.
"""

import numbers

import jax
import jax.numpy as jnp

from rlx import errors
from rlx.types import Array

hard = 1.0
"""The stated preference is right."""


def smoothed(epsilon: float) -> float:
    """``q = 1 - epsilon`` (conservative DPO); raises UserError outside [0, 0.5).

    >>> smoothed(0.1)
    0.9
    """
    return 1 - flip_rate(epsilon)


def debiased(epsilon: float) -> float:
    r""":math:`q = (1-\epsilon)/(1-2\epsilon)`: the expectation over flips with rate epsilon is the clean loss.

    >>> debiased(0.25)
    1.5
    """
    return (1 - flip_rate(epsilon)) / (1 - 2 * epsilon)


def soft(probability: float | Array) -> Array:
    """``q = p``, a constant."""
    return jax.lax.stop_gradient(jnp.asarray(probability))


def flip_rate(epsilon: float) -> float:
    """Checks a flip rate: at 0.5 the labels say nothing, beyond it they lie. Traced values pass.

    >>> flip_rate(0.5)
    Traceback (most recent call last):
    rlx.errors.UserError: epsilon is the rate of flipped labels and must be in [0, 0.5), got 0.5.
    """
    if isinstance(epsilon, numbers.Real) and not 0 <= epsilon < 0.5:
        raise errors.UserError(f"epsilon is the rate of flipped labels and must be in [0, 0.5), got {epsilon}.")
    return epsilon

"""Parts of recipes that are no published method of their own: tokens on the last axis ``[..., K, T]``."""

import jax.numpy as jnp

from rlx import numerics
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def whiten(
    advantages: Array, *, epsilon: float = 1e-8, where: Array | None = None, axis_name: numerics.AxisName = None
) -> Array:
    """Advantages centred and scaled by their unbiased variance over all real tokens, 0 where masked.

    >>> print(whiten(jnp.array([[1.0, 3.0]]), epsilon=0.0))
    [[-0.70710677  0.70710677]]
    """
    check_shapes(advantages=advantages, where=where)
    return numerics.whiten(constant(advantages, where), where=where, epsilon=epsilon, axis_name=axis_name)


def low_probability(old_logprobs: Array, *, threshold: float = 0.9, where: Array | None = None) -> Array:
    """Tokens that the old policy gave a probability below the threshold: ``[..., T]`` bool, False where masked.

    >>> print(low_probability(jnp.log(jnp.array([0.5, 0.95]))))
    [ True False]
    """
    check_shapes(old_logprobs=old_logprobs, where=where)
    # the absent token of a masked entry has probability 1
    return jnp.exp(constant(old_logprobs, where)) < threshold

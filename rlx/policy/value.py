"""Losses of a value head: tokens on the last axis ``[..., K, T]``; leading axes are the batch."""

import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.policy import ratios
from rlx.policy.weights import constant
from rlx.types import Array, Reduce, check_positive, check_shapes


def value_clip_loss(
    values: Array,
    old_values: Array,
    returns: Array,
    *,
    clip: float = 0.2,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""PPO's value loss, pessimistic about values that moved away from the old ones.

    .. math:: \ell_t = \tfrac12 \max\left((V_t - R_t)^2,\; (\mathrm{clip}(V_t, V^{old}_t \pm c) - R_t)^2\right)

    Args:
      values: ``[..., K, T]`` value head.
      old_values: ``[..., K, T]`` the same when the responses were sampled; a constant.
      returns: ``[..., K, T]`` targets (:func:`~rlx.policy.advantages.gae_advantage`); constants.
      clip: c, in the unit of the values; ``inf`` gives the squared error.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: ``clip`` is not above 0, or the shapes disagree.

    >>> print(f"{value_clip_loss(jnp.array([[1.0]]), jnp.array([[0.0]]), jnp.array([[1.0]])):.2f}")
    0.32

    References:
      Schulman et al., *Proximal Policy Optimization Algorithms*, arXiv:1707.06347 (the clip is of its authors' code).
    """
    errors = squared_errors(values, old_values, returns, clip=clip, where=where)
    return aggregate.finish(jnp.maximum(*errors) / 2, where, reduce)


def squared_errors(
    values: Array, old_values: Array, returns: Array, *, clip: float = 0.2, where: Array | None = None
) -> tuple[Array, Array]:
    """Squared errors ``[..., K, T]`` of the values, and of the values kept within ``clip`` of the old ones.

    Where the second is the larger one the clip binds. Arguments are those of :func:`value_clip_loss`.

    >>> print(*squared_errors(jnp.array([1.0]), jnp.array([0.0]), jnp.array([0.0]), clip=0.5))
    [1.] [0.25]
    """
    check_shapes(values=values, old_values=old_values, returns=returns, where=where)
    check_positive(clip=clip)
    values = numerics.clean(numerics.accumulate(values), where)
    old, returns = constant(old_values, where), constant(returns, where)
    return jnp.square(values - returns), jnp.square(ratios.clamp(values, old - clip, old + clip) - returns)

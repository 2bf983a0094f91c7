"""What a policy-gradient run reports, from the parts that the losses are built of: means over real tokens.

Tokens stand on the last axis ``[..., T]``; all leading axes are averaged over. Nothing here is differentiable. With
``axis_name`` (pmap, shard_map) the mean is over all shards. Called beside the loss in one jit, the work is shared.
"""

import jax

from rlx import numerics
from rlx.policy import ratios, regularize, surrogates
from rlx.policy.weights import constant
from rlx.types import Array


def clip_fraction(
    ratio: Array,
    advantages: Array,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """Fraction of tokens whose gradient PPO's clip removes: the clipped loss is strictly above the unclipped.

    Args:
      ratio: ``[..., T]`` the ratio of the loss (:mod:`rlx.policy.ratios`).
      advantages: ``[..., T]`` or ``[..., 1]``.
      clip_low: as in the loss.
      clip_high: as in the loss.
      where: ``[..., T]`` real tokens.
      axis_name: mapped axes.

    >>> print(clip_fraction(jnp.array([1.5, 1.0]), jnp.array([1.0, 1.0])))
    0.5
    """
    clipped = surrogates.is_clipped(ratio, constant(advantages, where), low=clip_low, high=clip_high)
    return numerics.mean(clipped, where=where, axis_name=axis_name)


def dual_clip_fraction(
    ratio: Array,
    advantages: Array,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float = 3.0,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """Fraction of tokens with a negative advantage whose loss the dual clip bounds; arguments as ``clip_fraction``.

    >>> print(dual_clip_fraction(jnp.array([4.0, 4.0]), jnp.array([-1.0, 1.0])))
    0.5
    """
    bounds = {"low": clip_low, "high": clip_high, "dual": dual_clip}
    clipped = surrogates.is_dual_clipped(ratio, constant(advantages, where), **bounds)
    return numerics.mean(clipped, where=where, axis_name=axis_name)


def approximate_kl(
    logprobs: Array,
    old_logprobs: Array,
    *,
    estimator: regularize.Estimator = regularize.k1,
    bound: float = ratios.CLAMP,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Mean estimate of KL(old || policy) in nats, over tokens of the old policy: k1 is the mean of :math:`-d`.

    Args:
      logprobs: ``[..., T]`` nats.
      old_logprobs: ``[..., T]``.
      estimator: of the log-ratio (:mod:`rlx.policy.regularize`).
      bound: clamp of the log-ratio, +-20 as in PPO's ratio.
      where: ``[..., T]`` real tokens.
      axis_name: mapped axes.

    >>> print(approximate_kl(jnp.array([-2.0, -1.0]), jnp.array([-1.0, -1.0])))
    0.5
    """
    d = ratios.clamp(-ratios.log_ratio(jax.lax.stop_gradient(logprobs), old_logprobs, where=where), -bound, bound)
    return numerics.mean(estimator.estimate(d), where=where, axis_name=axis_name)


def selected_fraction(selected: Array, *, where: Array | None = None, axis_name: numerics.AxisName = None) -> Array:
    """Fraction of tokens that a selection (:mod:`rlx.policy.select`) marks.

    >>> print(selected_fraction(jnp.array([True, False]), where=jnp.array([True, False])))
    1.0
    """
    return numerics.mean(selected, where=where, axis_name=axis_name)

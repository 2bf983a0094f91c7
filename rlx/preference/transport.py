"""Alignment via optimal transport: chosen and rejected are compared as distributions over the batch, rank by rank.

Candidates on the last axis ``[..., 2]``, chosen first; ``where [..., 2]`` marks real responses, pairs count whole.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Reduce, check_pairs


def sides(policy_logps: Array, reference_logps: Array, *, paired: bool = True) -> Array:
    r"""The two variables whose distributions are compared, ``[..., 2]``.

    Paired: the margin of the policy and that of the reference, :math:`\log\frac{\pi(y_w)}{\pi(y_l)}` and
    :math:`\log\frac{\pi_{ref}(y_w)}{\pi_{ref}(y_l)}`. Unpaired: the log-ratios of the chosen and of the rejected
    response.
    """
    if not paired:
        return scores.log_ratio(policy_logps, reference_logps)
    logps = numerics.accumulate(policy_logps), jax.lax.stop_gradient(numerics.accumulate(reference_logps))
    return jnp.stack([scores.margin(x) for x in logps], -1)


def aot_partners(
    policy_logps: Array,
    reference_logps: Array,
    *,
    paired: bool = True,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """For each entry of the two :func:`sides`, the entry of the same rank on the other one; constants ``[..., 2]``.

    >>> print(aot_partners(jnp.array([[5.0, 1.0], [4.0, 2.0]]), jnp.zeros((2, 2)), paired=False))
    [[2. 4.]
     [1. 5.]]
    """
    upper, lower = jnp.moveaxis(sides(policy_logps, reference_logps, paired=paired), -1, 0)
    valid = compare.pair_where(where)
    both = ((upper, lower), (lower, upper))
    return jnp.stack([compare.of_equal_rank(x, y, valid, axis_name=axis_name) for x, y in both], -1)


def aot(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    epsilon: float = 0.0,
    paired: bool = True,
    partners: Array | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Alignment via optimal transport: one distribution is to dominate another, at every quantile.

    .. math:: L = \frac1n\sum_k f(\beta\delta_k),\quad \delta_k = X_{(k)} - Y_{(k)},\quad f = -\log\sigma

    where :math:`X_{(k)}` is the k-th smallest over the batch and X, Y are the margins of policy and reference (paired)
    or the log-ratios of chosen and rejected responses (unpaired): :func:`sides`.

    The matching is a constant of the whole batch. The unit i is :math:`f(\beta(X_i - \bar Y_{r(i)}))`, its partner
    held constant, plus a term of value 0 that has the gradient of :math:`f(\beta(\bar X_{r(i)} - Y_i))`, so value and
    gradient are those of the sorted batch, however it is split.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      epsilon: label smoothing, in [0, 0.5).
      paired: compare margins; False (``aot_unpaired``) takes the pairs apart.
      partners: ``[..., 2]`` entries of equal rank; None sorts this batch (:func:`aot_partners`).
      where: ``[..., 2]`` real responses.
      axis_name: mapped axes that the ranks are global over.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the shapes disagree.

    >>> policy, reference = jnp.array([[1.0, 0.0], [2.0, 0.0]]), jnp.array([[2.0, 0.0], [1.0, 0.0]])
    >>> print(f"{aot(policy, reference):.4f}")
    0.6931

    References:
      Melnyk et al., *Distributional Preference Alignment of LLMs via Optimal Transport*, arXiv:2406.05882.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, partners=partners, where=where)
    if partners is None:
        shared = {"paired": paired, "where": where, "axis_name": axis_name}
        partners = aot_partners(policy_logps, reference_logps, **shared)
    own, other = sides(policy_logps, reference_logps, paired=paired), jax.lax.stop_gradient(partners)
    gaps = beta * jnp.stack([own[..., 0] - other[..., 0], other[..., 1] - own[..., 1]], -1)
    gaps = numerics.clean(gaps, compare.pair_where(where, keepdims=True))
    upper, lower = jnp.moveaxis(compare.pair(gaps, labels.smoothed(epsilon), links.logistic), -1, 0)
    return aggregate.finish(upper + lower - jax.lax.stop_gradient(lower), compare.pair_where(where), reduce)

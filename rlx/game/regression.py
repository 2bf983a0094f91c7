"""The squared regression that most Nash losses are: log-ratios of a policy against a constant target.

Candidates stand on the last axis; methods differ in what the policy is compared with, in the target, and in which
responses or pairs are summed. ``where [..., K]`` marks real responses; all give one value per example ``[...]``.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Reduce


def pair(
    policy_logps: Array, anchor_logps: Array, target: float | Array, where: Array | None, reduce: Reduce | None
) -> Array:
    r""":math:`(D_\pi - D_{anchor} - t)^2`, D the difference chosen minus rejected, ``[..., 2] -> [...]``."""
    margin = compare.beyond(scores.margin(scores.log_ratio(policy_logps, anchor_logps)), target)
    return compare.margins(margin, labels.hard, links.squared(0.0), compare.pair_where(where), reduce)


def each(score: Array, target: Array, where: Array | None, reduce: Reduce | None) -> Array:
    r""":math:`\frac12 \sum_k (s_k - t_k)^2` over the responses of an example, ``[..., K] -> [...]``."""
    difference = numerics.clean(score, where) - numerics.clean(jax.lax.stop_gradient(target), where)
    units = numerics.sum(jnp.square(difference), -1, where=where) / 2
    return aggregate.finish(units, compare.list_where(where), reduce)


def all_pairs(score: Array, target: Array, weights: Array, where: Array | None, reduce: Reduce | None) -> Array:
    r""":math:`\sum_{ij} w_{ij} (s_i - s_j - t_{ij})^2`, ``[..., K], [..., K, K] -> [...]``; weights are constants."""
    both, score = pairs_where(score, where), numerics.clean(score, where)
    target = numerics.clean(jax.lax.stop_gradient(target), both)
    squares = jnp.square(score[..., :, None] - score[..., None, :] - target)
    units = numerics.sum(jax.lax.stop_gradient(weights) * squares, (-2, -1), where=both)
    return aggregate.finish(units, both.sum((-2, -1)) > 1, reduce)


def pairs_where(score: Array, where: Array | None) -> Array:
    """``[..., K] -> [..., K, K]``: both responses of an ordered pair are there, a response with itself included."""
    where = jnp.ones(score.shape, bool) if where is None else jnp.broadcast_to(where, score.shape)
    return where[..., :, None] & where[..., None, :]


def uniform_weights(score: Array, where: Array | None, *, self_pairs: bool) -> Array:
    """Equal weights that sum to 1 over the ordered pairs of real responses, ``[..., K] -> [..., K, K]``."""
    both = pairs_where(score, where)
    if not self_pairs:
        both &= ~jnp.eye(score.shape[-1], dtype=bool)
    selected = both.astype(numerics.accumulate(score).dtype)
    return numerics.safe_divide(selected, selected.sum((-2, -1), keepdims=True))

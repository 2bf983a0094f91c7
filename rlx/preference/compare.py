"""How scores of candidates become the loss of an example."""

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.preference import scores
from rlx.types import Array, Link, Reduce, check_shapes


def pair(margin: Array, label: float | Array, link: Link) -> Array:
    """``q * link(m) + (1 - q) * link(-m)`` for margins ``[...]``."""
    return label * link(margin) + (1 - label) * link(-margin)


def pairs(score: Array, label: float | Array, link: Link, where: Array | None, reduce: Reduce | None) -> Array:
    """Compares the two candidates of ``score [..., 2]``; a pair counts when both candidates are there."""
    return margins(scores.margin(score), label, link, pair_where(where), reduce)


def margins(margin: Array, label: float | Array, link: Link, where: Array | None, reduce: Reduce | None) -> Array:
    """The loss of margins ``[...]`` that stand for a pair each; ``where`` and an array of labels are ``[...]`` too."""
    if jnp.ndim(label):  # a plain number broadcasts, and has nothing to mask
        check_shapes(margin=margin, label=jnp.asarray(label))
        label = numerics.clean(jnp.asarray(label), where)
    return aggregate.finish(pair(numerics.clean(margin, where), label, link), where, reduce)


def apart(score: Array, link: Link, where: Array | None, reduce: Reduce | None) -> Array:
    """Each of the two responses of ``score [..., 2]`` by itself: ``link(s_w) + link(-s_l)``; pairs count whole."""
    score = numerics.clean(score, where)
    return aggregate.finish(link(score[..., 0]) + link(-score[..., 1]), pair_where(where), reduce)


def pair_where(where: Array | None, *, keepdims: bool = False) -> Array | None:
    """``[..., 2] -> [...]``: both candidates are there; ``keepdims`` gives ``[..., 1]``."""
    return None if where is None else where.all(-1, keepdims=keepdims)


def list_where(where: Array | None) -> Array | None:
    """``[..., K] -> [...]``: at least one candidate is there."""
    return None if where is None else where.any(-1)


def cross_entropy(score: Array, target: Array, where: Array | None = None) -> Array:
    r""":math:`-\sum_i q_i \log\mathrm{softmax}(s)_i` over candidates ``[..., K] -> [...]``; 0 for an empty list."""
    logs = numerics.log_softmax(score, where=where)
    used = (target != 0) & ~jnp.isneginf(logs)
    return -numerics.sum(target * jnp.where(used, logs, 0), -1, where=used)


def plackett_luce(score: Array, order: Array, where: Array | None = None) -> tuple[Array, Array]:
    r"""Terms :math:`\log\sum_{l\ge k} e^{s_{\pi_l}} - s_{\pi_k}` of a ranking, best first.

    Args:
      score: ``[..., K]``.
      order: ``[..., K]`` int, the candidates best first.
      where: ``[..., K]`` the real candidates.

    Returns:
      The terms and which of them are real, both ``[..., K]`` in the order of the ranking.
    """
    where = jnp.ones(score.shape, bool) if where is None else jnp.broadcast_to(where, score.shape)
    ranked = jnp.take_along_axis(numerics.accumulate(score), order, -1)
    real = jnp.take_along_axis(where, order, -1)
    tail = numerics.suffix_logsumexp(ranked, where=real)
    return numerics.clean(numerics.clean(tail, real) - numerics.clean(ranked, real), real), real


def descending(keys: Array, where: Array | None = None) -> Array:
    """Order of the candidates, largest key first, ties by position, masked ones last: ``[..., K]`` int.

    >>> print(descending(jnp.array([1.0, 3.0, 9.0, 3.0]), jnp.array([True, True, False, True])))
    [1 3 0 2]
    """
    keys = jax.lax.stop_gradient(numerics.accumulate(keys))
    masked = jnp.zeros(keys.shape, bool) if where is None else ~jnp.broadcast_to(where, keys.shape)
    return jnp.lexsort((-numerics.clean(keys, ~masked), masked), axis=-1)


def beyond(margin: Array, required: float | Array) -> Array:
    """By how much margins ``[...]`` exceed what is required of them, a constant: a number or ``[...]``."""
    if jnp.ndim(required):
        check_shapes(margin=margin, required=jnp.asarray(required))
    return margin - jax.lax.stop_gradient(required)


def of_equal_rank(
    keys: Array, values: Array, where: Array | None = None, *, axis_name: numerics.AxisName = None
) -> Array:
    """For every key, the value that ranks among all values as it does among all keys; a constant, 0 where masked.

    Both ``[...]`` over the whole batch, ranked ascending, ties by position: ``sort(values)[rank(keys)]``.

    >>> print(of_equal_rank(jnp.array([5.0, 1.0, 3.0]), jnp.array([10.0, 30.0, 20.0])))
    [30. 10. 20.]
    """
    keys, values = (jax.lax.stop_gradient(numerics.accumulate(x)) for x in (keys, values))
    where = jnp.ones(keys.shape, bool) if where is None else where
    everything = numerics.gather(numerics.clean(values, where, jnp.inf).ravel(), axis_name)
    partners = jnp.sort(everything)[numerics.ranks(-keys, where, axis_name)]
    return numerics.clean(partners, where)

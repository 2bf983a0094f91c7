"""How scores of candidates become the loss of an example."""

import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.types import Array, Link, Reduce


def pair(margin: Array, label: float | Array, link: Link) -> Array:
    """``q * link(m) + (1 - q) * link(-m)`` for margins ``[...]``."""
    return label * link(margin) + (1 - label) * link(-margin)


def pairs(score: Array, label: float | Array, link: Link, where: Array | None, reduce: Reduce | None) -> Array:
    """Compares the two candidates of ``score [..., 2]``; a pair counts when both candidates are there."""
    valid = pair_where(where)
    score = numerics.clean(score, where)
    return aggregate.finish(pair(score[..., 0] - score[..., 1], label, link), valid, reduce)


def pair_where(where: Array | None) -> Array | None:
    """``[..., 2] -> [...]``: both candidates are there."""
    return None if where is None else where.all(-1)


def cross_entropy(score: Array, target: Array, where: Array | None = None) -> Array:
    r""":math:`-\sum_i q_i \log\mathrm{softmax}(s)_i` over candidates ``[..., K] -> [...]``; 0 for an empty list."""
    logs = numerics.log_softmax(score, where=where)
    used = (target != 0) & ~jnp.isneginf(logs)
    return -numerics.sum(target * jnp.where(used, logs, 0), -1, where=used)


def plackett_luce(score: Array, order: Array, where: Array | None = None) -> tuple[Array, Array]:
    r"""Terms :math:`\log\sum_{l\ge k} e^{s_{\pi_l}} - s_{\pi_k}` of a ranking, best first.

    Args:
      score: ``[..., K]``.
      order: ``[..., K]`` int, the candidates best first, masked ones last.
      where: ``[..., K]`` the real candidates.

    Returns:
      The terms and which of them are real, both ``[..., K]`` in the order of the ranking.
    """
    ranked = jnp.take_along_axis(numerics.accumulate(score), order, -1)
    real = (
        jnp.ones(ranked.shape, bool)
        if where is None
        else jnp.take_along_axis(jnp.broadcast_to(where, score.shape), order, -1)
    )
    tail = numerics.suffix_logsumexp(ranked, where=real)
    return numerics.clean(numerics.clean(tail, real) - numerics.clean(ranked, real), real), real


def descending(keys: Array, where: Array | None = None) -> Array:
    """Order of the candidates, largest key first, ties by position, masked ones last: ``[..., K]`` int."""
    keys = numerics.accumulate(keys)
    masked = jnp.zeros(keys.shape, bool) if where is None else ~jnp.broadcast_to(where, keys.shape)
    return jnp.lexsort((-numerics.clean(keys, ~masked), masked), axis=-1)

"""The most probable tokens of a row without sorting it: a nucleus or the top k, and what needs a second look at a row.

Logits become unsigned integers of the same order. The smallest key of the selection is found bit by bit, and among
equal logits at that key the last one that is kept by its index: sums over the row are all that is needed, so the
vocabulary may be split over devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx_kernels import core, gradients
from rlx_kernels.core import Kept, Spec, Sums
from rlx_kernels.problem import vary

RULES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "crossing": lambda share, before: jnp.ceil(share),
    "strict": lambda share, before: jnp.maximum(jnp.ceil(share) - 1, 0),
    "at_least_one": lambda share, before: jnp.maximum(jnp.floor(share), before == 0),
}
"""How many of equal logits are kept where ``share`` of them would fill the mass that is left after ``before``."""


class Shards(NamedTuple):
    """Completes sums and maxima over the parts of a vocabulary that is split."""

    total: Callable[[Any], Any] = lambda value: value
    largest: Callable[[Any], Any] = lambda value: value


def shards(axis_name: str | None) -> Shards:
    """Those of the mapped axis ``axis_name``, or of a vocabulary in one piece."""
    if axis_name is None:
        return Shards()
    return Shards(lambda x: jax.lax.psum(x, axis_name), lambda x: jax.lax.pmax(x, axis_name))


def order_key(z: jax.Array) -> jax.Array:
    """Unsigned integers in the order of the floats ``z``; both zeros are one.

    >>> print(jnp.argsort(order_key(jnp.array([0.5, -jnp.inf, -2.0]))))
    [1 2 0]
    """
    width = z.dtype.itemsize * 8
    bits = jax.lax.bitcast_convert_type(jnp.where(z == 0, jnp.zeros_like(z), z), f"uint{width}")
    sign = jnp.array(1 << (width - 1), bits.dtype)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def smallest(holds: Callable[[jax.Array], jax.Array], bits: int, like: jax.Array) -> jax.Array:
    """The smallest integer of ``bits`` bits for which the monotone ``holds`` is true, all ones where none is."""
    ones = jnp.full_like(like, (1 << bits) - 1)
    ones = vary(ones, holds(ones))

    def step(i, found):
        lower = found & ~(jnp.ones_like(found) << (bits - 1 - i).astype(found.dtype))
        return jnp.where(holds(lower), lower, found)

    return jax.lax.fori_loop(0, bits, step, ones)


def most_probable(
    z: jax.Array,
    columns: jax.Array,
    vocab: int,
    weight: jax.Array,
    budget: float,
    rule: str,
    shards: Shards = Shards(),  # noqa: B008
) -> tuple[jax.Array, jax.Array]:
    """Key and end (:class:`core.Kept`) of the tokens that come before ``budget`` of ``weight`` is used up.

    ``z [..., V]`` is a row or a shard of it, ``columns`` its token ids in the vocabulary of ``vocab`` tokens; equal
    logits have equal weights.
    """
    key, total = order_key(z), lambda tile: shards.total(tile.sum(-1, keepdims=True))

    def before(threshold):
        return total(jnp.where(key > threshold, weight, 0))

    edge = smallest(lambda k: before(k) < budget, z.dtype.itemsize * 8, key[..., :1])
    used, equal = before(edge), key == edge
    each = shards.largest(jnp.where(equal, weight, 0).max(-1, keepdims=True))
    share = (budget - used) / jnp.where(each > 0, each, 1)
    count = jnp.where(each > 0, RULES[rule](share, used), vocab)
    end = smallest(
        lambda k: total(jnp.where(equal & (columns < k), 1, 0).astype(count.dtype)) >= count,
        max(math.ceil(math.log2(vocab + 1)), 1),
        jnp.zeros(edge.shape, jnp.int32),
    )
    return edge, end


_SLACK = 8
"""Units in the last place by which logits that are computed again, in another program, may differ."""


def is_kept(z: jax.Array, columns: jax.Array, kept: Any, slack: int = 0) -> jax.Array:
    """Whether each token of a tile is among the most probable of its row; logits within ``slack`` are equal."""
    key = order_key(z)
    width = jnp.array(slack, key.dtype)
    above = jnp.where(kept.key > ~width, ~jnp.zeros_like(width), kept.key + width)  # sums of unsigned integers wrap
    below = jnp.where(kept.key < width, jnp.zeros_like(width), kept.key - width)
    return ((key > above) | ((key >= below) & (columns < kept.end))) & (z > -jnp.inf)


def second_look(
    z: jax.Array,
    x: Sums,
    spec: Spec,
    columns: jax.Array,
    vocab: int,
    other: jax.Array | None = None,
    shards: Shards = Shards(),  # noqa: B008
) -> Sums:
    """Fills in what needs the sums of the whole row first (``core.WHOLE_ROW``)."""
    r, new = core.row(x), {}
    u = z - x.m
    p = jnp.exp(u - r.log_s)
    for field, weight, budget, rule in (
        ("top_p", p, spec.top_p, spec.rule),
        ("top_k", jnp.where(z > -jnp.inf, 1, 0).astype(p.dtype), spec.top_k, "crossing"),
    ):
        if spec.needs(field):
            kept = Kept(*most_probable(z, columns, vocab, weight, budget, rule, shards), x.s, x.s)
            inside = jnp.where(is_kept(z, columns, kept), jnp.exp(u), 0)
            parts = inside.sum(-1, keepdims=True), core.times(inside, u).sum(-1, keepdims=True)
            new[field] = Kept(kept.key, kept.end, *shards.total(parts))
    if spec.needs("j"):
        log_p, log_p2 = u - r.log_s, other - x.m2 - r.log_s2
        log_mean = core.log_mean(log_p, log_p2)
        parts = [core.times(jnp.exp(q), q - log_mean).sum(-1, keepdims=True) for q in (log_p, log_p2)]
        new["j"], new["j2"] = (jnp.maximum(part, 0) for part in shards.total(parts))
    return x._replace(**new)


def dlogits_of_kept(z: jax.Array, rows: gradients.Gradient, columns: jax.Array) -> jax.Array:
    """Gradient of the entropies of the most probable tokens with respect to a tile of logits."""
    u, dz = z - rows.m, jnp.zeros_like(z)
    for most in (rows.top_p, rows.top_k):
        if most is not None:
            kept, weight = most
            s = jnp.where(kept.s == 0, 1, kept.s)
            q = jnp.where(is_kept(z, columns, kept, _SLACK), jnp.exp(u) / s, 0)
            dz = dz - weight * core.times(q, u - kept.a / s)
    return dz

"""Sums and statistics over parts of the last axis that integer ids name: turns, anchor states, children of a node.

Ids stand on the last axis ``[..., N]``, one for every value; leading axes are the batch. Shapes are static: the number
of segments is an argument. Ids outside ``0 .. num_segments - 1`` and masked entries belong to no segment.
"""

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def total(x: Array, ids: Array, num_segments: int, *, where: Array | None = None) -> Array:
    """Sum of every segment: ``[..., N]`` to ``[..., num_segments]``; the sum of nothing is 0.

    >>> print(total(jnp.array([1.0, 2.0, jnp.nan, 4.0]), jnp.array([0, 2, 0, 2]), 3, where=jnp.arange(4) != 2))
    [1. 0. 6.]
    """
    x = numerics.clean(numerics.accumulate(x), where)
    named = ids if where is None else jnp.where(where, ids, num_segments)
    # a negative id would count from the end
    named = jnp.where(named < 0, num_segments, named)
    summed = jnp.vectorize(
        lambda values, at: jax.ops.segment_sum(values, at, num_segments), signature=f"(n),(n)->({num_segments})"
    )
    return summed(x, jnp.broadcast_to(named, x.shape))


def spread(x: Array, ids: Array, *, where: Array | None = None) -> Array:
    """The value of its segment for every entry: ``[..., S]`` and ids ``[..., N]`` to ``[..., N]``, 0 without a segment.

    >>> print(spread(jnp.array([5.0, 7.0]), jnp.array([1, 1, 0, -1])))
    [7. 7. 5. 0.]
    """
    known = (ids >= 0) & (ids < x.shape[-1])
    found = jnp.take_along_axis(x, jnp.clip(ids, 0, x.shape[-1] - 1), -1)
    return numerics.clean(found, known if where is None else known & where)


def dense(ids: Array) -> Array:
    """Any integers renamed to ``0 .. N - 1``, equal ones alike, so that N segments suffice.

    >>> print(dense(jnp.array([900, -7, 900, 3])))
    [2 0 2 1]
    """
    size = ids.shape[-1]
    rename = lambda row: jnp.unique(row, size=size, return_inverse=True)[1].reshape(size)  # noqa: E731
    return jnp.vectorize(rename, signature="(n)->(n)")(ids)


def settle(difference: Array, like: Array) -> Array:
    """Differences that rounding alone can make become 0, so that no small epsilon magnifies them.

    ``like`` has the magnitude of the numbers that were subtracted. A sum of n of them may be off by n roundings; 16 are
    allowed for.

    >>> print(settle(jnp.array([1e-7, 1e-3]), jnp.array([1.0, 1.0])))
    [0.    0.001]
    """
    return jnp.where(jnp.abs(difference) <= 16 * jnp.finfo(difference.dtype).eps * jnp.abs(like), 0, difference)


def normalize(
    values: Array,
    ids: Array,
    *,
    scale: bool = False,
    ddof: int = 1,
    epsilon: float = 1e-6,
    where: Array | None = None,
) -> Array:
    r"""Values relative to the entries of the same id: :math:`(x_i - \bar x_{s(i)}) / (\sigma_{s(i)} + \epsilon)`.

    Args:
      values: ``[..., N]``, constants.
      ids: ``[..., N]`` any integers.
      scale: divide by the standard deviation of the segment.
      ddof: 1 for the unbiased standard deviation, 0 for the population's.
      epsilon: added to the standard deviation.
      where: ``[..., N]`` real entries.

    Returns:
      ``[..., N]``; 0 where masked, and for an entry that is alone.

    >>> print(normalize(jnp.array([1.0, 3.0, 8.0]), jnp.array([4, 4, 9])))
    [-1.  1.  0.]
    """
    check_shapes(values=values, ids=ids, where=where)
    values, named, size = constant(values, where), dense(ids), values.shape[-1]
    n = total(jnp.ones_like(values), named, size, where=where)
    centre = spread(numerics.safe_divide(total(values, named, size, where=where), n), named)
    centred = settle(values - centre, values)
    if not scale:
        return numerics.clean(centred, where)
    squares = total(jnp.square(centred), named, size, where=where)
    deviation = jnp.sqrt(numerics.safe_divide(squares, jnp.maximum(n - ddof, 0)))
    return numerics.clean(centred / (spread(deviation, named) + epsilon), where)

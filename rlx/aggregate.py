"""Reductions as weights: from the losses of all units to one number, exactly, over any split of the batch.

A reduction is a pair of functions of the unit mask: ``weights`` (inside a row) and ``count`` (what the mean is over).
The loss is ``sum(weights * loss) / count``; both numerator and count add up over micro-batches and shards, so an
accumulated or sharded step divides once, after the global sum, and equals the undivided step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rlx import errors, numerics, parts
from rlx.types import Array, Reduce


class Aggregation(NamedTuple):
    """``sum(weights(where) * loss) / count(where)``.

    Attributes:
      weights: unit mask -> weight of every unit, a function of the unit's own row.
      count: unit mask -> scalar, additive over rows; None divides by nothing.
      axis_name: mapped axes the mean is global over. Under pmap or shard_map the call returns this shard's share of the
        global loss: ``psum`` the shares, and their gradients, to get the whole.
      name: what a config calls it.
    """

    weights: Callable[[Array], Array]
    count: Callable[[Array], Array] | None
    axis_name: numerics.AxisName = None
    name: str = "aggregation"

    def __repr__(self) -> str:
        return self.name

    def __call__(self, loss: Array, where: Array | None = None) -> Array:
        where = jnp.ones(loss.shape, bool) if where is None else jnp.broadcast_to(where, loss.shape)
        numerator, denominator = self.terms(loss, where)
        return self.divide(numerator, numerics.psum(denominator, self.axis_name))

    def terms(self, loss: Array, where: Array) -> tuple[Array, Array]:
        """Numerator and denominator of these rows alone; sum both over all rows, then divide once."""
        loss = numerics.accumulate(loss)
        numerator = numerics.sum(self.weights(where).astype(loss.dtype) * numerics.clean(loss, where), where=where)
        return numerator, jnp.zeros((), loss.dtype) if self.count is None else self.count(where).astype(loss.dtype)

    def divide(self, numerator: Array, denominator: Array) -> Array:
        """The one division, after the sums over all rows; works on gradients of the numerator too."""
        return numerator if self.count is None else numerics.safe_divide(numerator, denominator)

    def over(self, axis_name: numerics.AxisName) -> "Aggregation":
        """The same reduction, global over mapped axes."""
        return self._replace(axis_name=axis_name)


def _ones(where: Array) -> Array:
    return jnp.ones(where.shape, jnp.result_type(float))


def _units(where: Array) -> Array:
    return numerics.count(where, _ones(where))


def _rows(where: Array) -> Array:
    nonempty = where.any(-1)
    return numerics.count(nonempty, _ones(nonempty))


def _all_rows(where: Array) -> Array:
    return jnp.asarray(where[..., 0].size, jnp.result_type(float))


def _per_row(where: Array) -> Array:
    return numerics.safe_divide(_ones(where), numerics.count(where, _ones(where), -1, keepdims=True))


mean = Aggregation(_ones, _units, name="mean")
"""Mean over all valid units: examples of a preference loss, tokens of a token loss."""

token_mean = mean
"""Mean over all valid tokens of the batch (DAPO; verl ``token-mean``)."""

sequence_mean = Aggregation(_per_row, _rows, name="sequence_mean")
"""Mean over non-empty rows of the mean over their tokens (GRPO; verl ``seq-mean-token-mean``)."""

sequence_sum = Aggregation(_ones, _rows, name="sequence_sum")
"""Mean over non-empty rows of the sum over their tokens (verl ``seq-mean-token-sum``)."""

total = Aggregation(_ones, None, name="total")
"""Plain sum over all valid units."""


def with_empty(reduction: Aggregation) -> Aggregation:
    """A mean over rows that counts empty rows too, as TRL does; padding that was added to the batch counts as well.

    >>> print(with_empty(sequence_mean)(jnp.ones((2, 2)), jnp.array([[True, True], [False, False]])))
    0.5
    """
    return reduction._replace(count=_all_rows, name=f"{reduction.name}_with_empty")


sequence_mean_with_empty = with_empty(sequence_mean)
"""Mean over all rows of the mean over their tokens, 0 for an empty row (TRL ``grpo``)."""

sequence_sum_with_empty = with_empty(sequence_sum)
"""Mean over all rows of the sum over their tokens (TRL ``luspo``)."""


def constant(length: float | Array, *, per_row: bool = True, empty: bool = False) -> Aggregation:
    """Sum over tokens divided by a constant length, averaged over rows (Dr. GRPO, arXiv:2503.20783).

    Args:
      length: the constant, usually the largest response length.
      per_row: False divides the sum over the whole batch by ``length`` alone, as verl's ``seq-mean-token-sum-norm``
        does. That is also the mean over a number of tokens that is known from elsewhere (TRL's
        ``num_items_in_batch``): exact over micro-batches, as the number is the same for each.
      empty: rows without tokens count too, as in TRL.

    >>> print(constant(4)(jnp.ones((2, 3)), jnp.ones((2, 3), bool)))
    0.75
    """
    rows = _all_rows if empty else _rows
    name = f"constant({length}, per_row={per_row}, empty={empty})"
    return Aggregation(lambda where: _ones(where) / length, rows if per_row else None, name=name)


def units(loss: Array, where: Array) -> tuple[Array, Array]:
    """In the place of a reduction: the losses of all units and their mask, for a caller that reduces them."""
    return numerics.clean(loss, where), jnp.broadcast_to(where, loss.shape)


def finish(loss: Array, where: Array | None, reduce: Reduce | None) -> Array:
    """The last line of every loss: the units (0 where masked) for ``reduce=None``, else the reduced loss."""
    where = jnp.ones(loss.shape, bool) if where is None else jnp.broadcast_to(where, loss.shape)
    return numerics.clean(loss, where) if reduce is None else reduce(loss, where)


NAMED: dict[str, Aggregation] = {
    "mean": mean,
    "token_mean": token_mean,
    "sequence_mean": sequence_mean,
    "sequence_sum": sequence_sum,
    "sequence_mean_with_empty": sequence_mean_with_empty,
    "sequence_sum_with_empty": sequence_sum_with_empty,
    "total": total,
}


def by_name(name: str | Aggregation) -> Aggregation:
    """The reduction that a config names: ``token_mean``, ``sequence_mean``, ``constant(1024)``,
    ``constant(1024, per_row=False)``, ...

    >>> print(by_name("constant(4)")(jnp.ones((2, 3))))
    0.75
    """
    if isinstance(name, Aggregation):
        return name
    head, opened, _ = name.partition("(")
    if head in NAMED and not opened:
        return NAMED[head]
    try:
        call = parts.parse(name)
        if head == "constant" and all(isinstance(n, int | float) for n in (*call.arguments, *call.keywords.values())):
            return constant(*call.arguments, **call.keywords)
    except (errors.UserError, TypeError):
        pass
    hint = errors.close_matches(name, [*NAMED, "constant(L)"])
    raise errors.UserError(
        f"Unknown aggregation {name!r}.{hint} Known: {', '.join(NAMED)}, constant(L) with a number L, and "
        "constant(L, per_row=False)."
    )

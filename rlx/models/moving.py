"""Parameters in two parts: those that training moves and those that stay (:attr:`rlx.models.Model.trainable`).

A part is the tree with None, which jax takes for an empty branch, in the place of the leaves of the other part. So
gradients, optimiser state and copies of a policy hold what moves alone, and the leaves that stay exist once.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax

from rlx.models.base import Model, Params


def moving(model: Model, params: Params, of: Any = None) -> Any:
    """The part that training moves; all of it for a model that does not say.

    Args:
        model: says which leaves those are.
        params: of the model, arrays or shapes.
        of: another tree of the same structure (specs, shardings) whose part is taken, instead of that of ``params``.
    """
    return _part(model, params, of, True)


def staying(model: Model, params: Params, of: Any = None) -> Any:
    """The other part, leaves that no step changes, as :func:`moving` has it."""
    return _part(model, params, of, False)


def _part(model: Model, params: Params, of: Any, wanted: bool) -> Any:
    tree = params if of is None else of
    if model.trainable is None:
        return tree if wanted else jax.tree.map(lambda _: None, params)
    mask, structure = jax.tree.flatten(model.trainable(params))
    leaves = zip(structure.flatten_up_to(tree), mask, strict=True)
    return structure.unflatten([leaf if bool(moves) is wanted else None for leaf, moves in leaves])


def join(part: Any, full: Any) -> Any:
    """``part`` with the leaves that it lacks taken from ``full``, without a copy.

    >>> join({"b": 1, "w": None}, {"b": 3, "w": 2})
    {'b': 1, 'w': 2}
    """
    return jax.tree.map(lambda own, other: other if own is None else own, part, full, is_leaf=_lacks)


_lacks = functools.partial(operator.is_, None)

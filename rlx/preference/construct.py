"""Preference pairs from K scored samples, or from the nodes of a search tree, with static shapes: indices and a mask.

Candidates on the last axis ``[..., K]``; ``where`` marks the real ones. Which pairs are made is a matter of ranks: a
:class:`RankPairs` function; what is not a pair, for want of candidates or of a difference, is masked.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rlx import errors, numerics
from rlx.preference import compare
from rlx.types import VOCABULARY, Array, check_shapes


class Pairs(NamedTuple):
    """M pairs out of K candidates.

    Attributes:
      indices: ``[..., M, 2]`` int, the chosen candidate first.
      where: ``[..., M]`` the real pairs.
      strengths: ``[..., M]`` probability that the chosen one is better, 0 where masked.
    """

    indices: Array
    where: Array
    strengths: Array


class RankPairs(Protocol):
    """Ranks (0 = best) of the pairs, broadcast to ``[..., M]``, from the list size and the real ones ``[..., 1]``."""

    def __call__(self, size: int, count: Array) -> tuple[Array, Array]: ...


class Strength(Protocol):
    """Strengths of pairs from the difference of scores, of ranks, and the number of real candidates."""

    def __call__(self, difference: Array, ranks_between: Array, count: Array) -> Array: ...


def everyone(size: int, count: Array) -> tuple[Array, Array]:
    """All K (K - 1) / 2 pairs."""
    better, worse = np.triu_indices(size, 1)
    return jnp.asarray(better), jnp.asarray(worse)


def extremes(size: int, count: Array) -> tuple[Array, Array]:
    """The best and the worst."""
    return jnp.zeros_like(count), count - 1


def best_and_rest(size: int, count: Array) -> tuple[Array, Array]:
    """The best and each of the others."""
    worse = jnp.arange(1, size)
    return jnp.zeros_like(worse), worse


def neighbours(size: int, count: Array) -> tuple[Array, Array]:
    """Each and the next one down."""
    better = jnp.arange(size - 1)
    return better, better + 1


def by_rank(difference: Array, ranks_between: Array, count: Array) -> Array:
    """From 1/2 for no rank between to 1 for all of them: the strengths of osp's ranked pairs are not established."""
    return 0.5 + 0.5 * ranks_between / jnp.maximum(count - 1, 1)


def by_score(tau: float) -> Strength:
    r""":math:`\sigma((r_w - r_l)/\tau)`: the soft label of a Bradley-Terry judge.

    >>> print(by_score(1.0)(0.0, 1, 2))
    0.5
    """
    return lambda difference, ranks_between, count: jax.nn.sigmoid(difference / tau)


def mean_ranks(scores: Array, where: Array) -> Array:
    """Ranks (0 = best) of the real candidates, equal scores sharing the mean of theirs: ``[..., K]``.

    >>> print(mean_ranks(jnp.array([1.0, 3.0, 1.0]), jnp.ones(3, bool)))
    [1.5 0.  1.5]
    """
    mine, other = scores[..., :, None], scores[..., None, :]
    above, equal = (numerics.count(where[..., None, :] & c, c, -1) for c in (other > mine, other == mine))
    return above + (equal - 1) / 2


def make_pairs(
    scores: Array,
    *,
    ranks: RankPairs = everyone,
    margin: float | Array = 0.0,
    halves: bool = False,
    strength: Strength = by_rank,
    where: Array | None = None,
) -> Pairs:
    """Pairs of scored candidates, the higher score chosen; equal scores make no pair.

    Args:
      scores: ``[..., K]``.
      ranks: which ranks meet: :func:`everyone`, :func:`extremes`, :func:`best_and_rest`, :func:`neighbours`.
      margin: least difference of scores; an array broadcasts against ``[..., M]``.
      halves: only pairs of a candidate of the top half and one of the bottom half (UPO's pre-screening); the middle
        one of an odd number is in neither.
      strength: how sure a pair is: :func:`by_rank`, or :func:`by_score` of a temperature. Equal scores have equal
        ranks here (:func:`mean_ranks`); where ranks meet, those of equal scores are in the order given.
      where: ``[..., K]`` real candidates.

    Raises:
      UserError: there are fewer than two candidates, or the shapes disagree.

    >>> pairs = make_pairs(jnp.array([1.0, 3.0, 2.0]), ranks=neighbours)
    >>> print(pairs.indices.tolist(), pairs.strengths)
    [[1, 2], [2, 0]] [0.75 0.75]

    References:
      Zhai et al., *Online Self-Preferring Language Models*, arXiv:2405.14103 (ranked pairs); *UPO*, arXiv:2409.11212
      (pre-screening).
    """
    check_shapes(scores=scores, where=where)
    size = scores.shape[-1]
    if size < 2:
        raise errors.UserError(f"scores has shape {scores.shape}: pairs want at least two candidates on the last axis.")
    where = jnp.ones(scores.shape, bool) if where is None else jnp.broadcast_to(where, scores.shape)
    scores = numerics.clean(jax.lax.stop_gradient(numerics.accumulate(scores)), where)
    count = where.sum(-1, keepdims=True)
    order = compare.descending(scores, where)
    better, worse = jnp.broadcast_arrays(*(r + jnp.zeros_like(count) for r in ranks(size, count)))
    valid = (better < worse) & (worse < count)
    if halves:
        valid &= (better < count // 2) & (worse >= count - count // 2)
    # a pair that does not exist points at the first candidates of the order: indices are always in range
    indices = select(order, jnp.clip(jnp.stack([better, worse], -1), 0, size - 1))
    won, lost = jnp.moveaxis(select(scores, indices), -1, 0)
    valid &= (won > lost) & (won >= lost + margin)
    difference = numerics.clean(won, valid) - numerics.clean(lost, valid)
    between = jnp.diff(select(mean_ranks(scores, where), indices))[..., 0]
    sure = strength(difference, between, count).astype(scores.dtype)
    return Pairs(indices, valid, numerics.clean(sure, valid))


def select(array: Array, indices: Array) -> Array:
    """The candidates of pairs: ``[..., K, *rest]`` and ``[..., M, 2] -> [..., M, 2, *rest]``.

    >>> print(select(jnp.array([10.0, 20.0, 30.0]), jnp.array([[2, 0]])))
    [[30. 10.]]
    """
    axis = indices.ndim - 2
    flat = indices.reshape((*indices.shape[:-2], -1, *([1] * (array.ndim - axis - 1))))
    return jnp.take_along_axis(array, flat, axis).reshape((*indices.shape, *array.shape[axis + 1 :]))


def take_pairs(batch: Mapping[str, Array], pairs: Pairs) -> dict[str, Array]:
    """A batch of lists as a batch of pairs, which every pairwise loss takes.

    Args:
      batch: arrays by vocabulary name, and ``where`` (``[..., K]`` or ``[..., K, T]``) if not all of it is real.
      pairs: M pairs a list.

    Returns:
      What has candidates, ``[..., K, *rest]``, as ``[..., M, 2, *rest]``; what has none repeated for every pair;
      ``where`` of the tokens or candidates of real pairs; and the strengths as ``preference_probs``.

    Raises:
      UserError: a name is not in the vocabulary, or an array has other leading axes than the pairs or compares all
        candidates with all.

    >>> lists = {"policy_logps": jnp.array([-1.0, -2.0, -3.0])}
    >>> found = take_pairs(lists, make_pairs(jnp.array([0.0, 1.0, 1.0]), ranks=neighbours))
    >>> print(found["policy_logps"].tolist(), found["where"].tolist())
    [[-2.0, -3.0], [-3.0, -1.0]] [[False, False], [True, True]]
    """
    real = jnp.broadcast_to(pairs.where[..., None], pairs.indices.shape)
    taken = {name: _take(name, jnp.asarray(array), pairs) for name, array in batch.items()}
    if "where" in taken:
        real = real.reshape(real.shape + (1,) * (taken["where"].ndim - real.ndim)) & taken["where"]
    return taken | {"where": real, "preference_probs": pairs.strengths}


def _take(name: str, array: Array, pairs: Pairs) -> Array:
    leading, known = pairs.where.shape[:-1], VOCABULARY | {"where": ("...K", "")}
    if name not in known:
        raise errors.UserError(f"{name!r} is not in the vocabulary.{errors.close_matches(name, known)}")
    axes, start = known[name][0].removeprefix("..."), len(leading)
    if array.shape[:start] != leading or array.ndim < start + len(axes):
        raise errors.UserError(f"{name} has shape {array.shape}: pairs of {leading} lists want {[*leading, *axes]}.")
    if axes.count("K") > 1:
        raise errors.UserError(f"{name} compares all candidates with all, {[*leading, *axes]}: pairs cannot take it.")
    if "K" not in axes:
        return jnp.repeat(jnp.expand_dims(array, start), pairs.where.shape[-1], start)
    k = axes.index("K")  # not the first axis for J opponents
    return jnp.moveaxis(select(jnp.moveaxis(array, start + k, start), pairs.indices), start + 1, start + 1 + k)


def _descend(node: Array, parents: Array, values: Array, where: Array) -> tuple[Array, tuple[Array, Array]]:
    """From a node to its best child; on the way, the best and the worst child."""
    children = where & (parents == node)
    count = children.sum()
    order = compare.descending(values, children)
    pair = jnp.stack([order[0], order[jnp.maximum(count - 1, 0)]])
    beyond = len(parents)  # no node has this one as its parent: the descent ends
    return jnp.where(count > 0, order[0], beyond).astype(node.dtype), (pair, count > 1)


def _path_pairs(values: Array, parents: Array, where: Array, *, depth: int) -> tuple[Array, Array]:
    step = functools.partial(_descend, parents=parents, values=values, where=where)
    root = jnp.zeros((), parents.dtype)
    _, found = jax.lax.scan(lambda node, _: step(node), root, length=depth)
    return found


def step_pairs(
    node_values: Array, tree_parent: Array, *, depth: int = 5, margin: float = 0.0, where: Array | None = None
) -> Pairs:
    """Step-level pairs of a search: at each depth, the best and the worst child of the best node so far.

    Args:
      node_values: ``[..., N]`` values (Q) of the nodes.
      tree_parent: ``[..., N]`` int, parents; node 0 is the root, whose parent is negative.
      depth: how many steps to go down; a shorter path leaves its last pairs masked.
      margin: least difference of values; equal values make no pair.
      where: ``[..., N]`` real nodes.

    Returns:
      Pairs of nodes, ``[..., depth, 2]``, all of strength 1.

    Raises:
      UserError: depth is below 1, or the shapes disagree.

    >>> pairs = step_pairs(jnp.array([0.0, 1.0, 2.0, 5.0, 4.0]), jnp.array([-1, 0, 0, 2, 2]), depth=3)
    >>> print(pairs.indices[:2].tolist(), pairs.where)
    [[2, 1], [3, 4]] [ True  True False]

    References:
      Xie et al., arXiv:2405.00451.
    """
    check_shapes(node_values=node_values, tree_parent=tree_parent, where=where)
    if depth < 1:
        raise errors.UserError(f"depth counts the steps from the root and must be at least 1, got {depth}.")
    where = jnp.ones(tree_parent.shape, bool) if where is None else jnp.broadcast_to(where, tree_parent.shape)
    values = numerics.clean(jax.lax.stop_gradient(numerics.accumulate(node_values)), where)
    walk = jnp.vectorize(functools.partial(_path_pairs, depth=depth), signature="(n),(n),(n)->(d,p),(d)")
    indices, valid = walk(values, jnp.asarray(tree_parent), where)
    best, worst = jnp.moveaxis(select(values, indices), -1, 0)
    valid &= (best > worst) & (best >= worst + margin)
    return Pairs(indices, valid, valid.astype(values.dtype))

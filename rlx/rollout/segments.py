"""Trees of segments: a response of one turn branches after every so many tokens (SPO-tree), to value where it stands.

From the prompt b_1 segments of a fixed length are drawn, from the end of each b_2 more, and so on; those of the last
level go on to the end of the response. A segment that ends the response is a leaf, whatever its level. Leaves have the
rewards, and a node is worth what the leaves below it earn (:mod:`rlx.policy.trees`): a Monte Carlo estimate for every
segment, from no more than one tree of responses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rlx.models.base import Model, Params
from rlx.rollout.forks import prompts_with
from rlx.rollout.sampler import sample
from rlx.rollout.types import Rollout, Sampling

ROOT, ABSENT = -1, -2
"""``tree_parent`` of the root, and of a node that the tree does not have."""
ARRAYS = ("tree_parent", "node_rewards", "node_ids", "turn_ids")
"""What is told of the trees, by the names of :data:`rlx.types.VOCABULARY`: a segment is a step, and a turn."""


class Trees(NamedTuple):
    """A tree of responses to every prompt, whose leaves stand on K; S levels, N nodes.

    Attributes:
      rollout: whole responses ``[P, K, M]``, one for each leaf.
      present: ``[P, K]`` leaves that there are: a response that ends early is the first of those below its last
        segment, and all others are absent.
      own: ``[P, K, M]`` tokens that no leaf before has: of a segment that several share, the first one's.
      node_ids: ``[P, K, S]`` the node that a segment leads to, -1 for none.
      tree_parent: ``[P, N]``, :data:`ROOT` for node 0, the prompt, :data:`ABSENT` for what the tree does not have.
      segments: ``[P, K, M]`` level of a token, -1 after the end.
    """

    rollout: Rollout
    present: np.ndarray
    own: np.ndarray
    node_ids: np.ndarray
    tree_parent: np.ndarray
    segments: np.ndarray


def draw(
    model: Model,
    params: Params,
    prompt_tokens: np.ndarray,
    prompt_valid: np.ndarray,
    *,
    length: int,
    branching: Sequence[int],
    sampling: Sampling,
    key: jax.Array,
    mesh: Mesh | None = None,
) -> Trees:
    """Draws a tree for every prompt, one call of the sampler a level.

    Args:
      model: as :func:`~rlx.rollout.sampler.sample` takes it.
      params: of the model.
      prompt_tokens: ``[P, L]``, padded on the left.
      prompt_valid: ``[P, L]``.
      length: tokens of a segment.
      branching: b, children of a node by level; their product is K. The levels before the last must be shorter together
        than a response may be.
      sampling: how they are drawn; ``max_new_tokens`` is that of a whole response.
      key: of the draws.
      mesh: as ``sample`` takes it.

    References:
      Guo et al., *Segment Policy Optimization*, arXiv:2505.23564; *TreePS-RAG*, arXiv:2601.06922.
    """
    sizes = [length] * (len(branching) - 1)
    sizes.append(sampling.max_new_tokens - sum(sizes))
    whole: Any = None
    for level, (children, size) in enumerate(zip(branching, sizes, strict=True)):
        options: dict[str, Any] = {"key": jax.random.fold_in(key, level), "mesh": mesh}
        options["sampling"] = sampling._replace(max_new_tokens=size)
        if whole is None:
            whole = jax.device_get(sample(model, params, prompt_tokens, prompt_valid, group=children, **options))
            continue
        ends = np.full(whole.lengths.shape, whole.tokens.shape[-1])
        prompts = prompts_with(prompt_tokens, prompt_valid, whole.tokens, ends)
        drawn: Any = jax.device_get(sample(model, params, *prompts, group=children, **options))
        whole = _continued(whole, drawn, children, sampling.pad_id)
    assert whole is not None  # there is a level
    return tree_of(whole, length, branching)


def _continued(before: Any, after: Any, children: int, pad_id: int) -> Any:
    """Nodes ``[P, N, m]`` and the segments ``[P N, b, n]`` that follow them: their children ``[P, N b, m + n]``.

    A response that is finished goes on no further.
    """
    rows = before.tokens.shape[0], before.tokens.shape[1] * children
    before = Rollout._make(np.repeat(x, children, 1) for x in before)
    after = Rollout._make(x.reshape(*rows, *x.shape[2:]) for x in after)
    open_, found = ~before.finished, {}
    for name, first, then in zip(Rollout._fields, before, after, strict=True):
        if first.ndim == 3:
            fill = np.array(pad_id if name == "tokens" else 0, first.dtype)
            found[name] = np.concatenate([first, np.where(open_[..., None], then, fill)], -1)
    lengths = before.lengths + np.where(open_, after.lengths, 0)
    return Rollout(**found, lengths=lengths, finished=before.finished | after.finished)


def tree_of(leaves: Rollout, length: int, branching: Sequence[int]) -> Trees:
    """The tree that responses drawn level by level make up.

    Args:
      leaves: ``[P, K, M]`` responses in the order of the tree.
      length: tokens of a segment.
      branching: children of a node by level.
    """
    where = np.asarray(leaves.where)
    group, levels = where.shape[1], len(branching)
    below = [math.prod(branching[level + 1 :]) for level in range(levels)]  # leaves under a node of a level
    last = np.maximum((where.sum(-1) - 1) // length, 0).clip(max=levels - 1)  # the level that a response ends at
    steps = np.arange(levels)
    first = np.arange(group)[:, None] % np.array(below) == 0  # [K, S] the first leaf under its node
    present = np.take_along_axis(np.broadcast_to(first, (*last.shape, levels)), last[..., None], -1)[..., 0]
    starts = np.cumsum([1, *(group // size for size in below)])
    nodes = starts[:-1] + np.arange(group)[:, None] // np.array(below)  # [K, S]
    node_ids = np.where(steps <= last[..., None], nodes, -1).astype(np.int32)
    place = np.minimum(np.arange(where.shape[-1]) // length, levels - 1)
    segments = np.where(where, place, -1).astype(np.int32)
    parents = np.full((len(where), starts[-1]), ABSENT, np.int32)
    parents[:, 0] = ROOT
    before = np.concatenate([np.zeros((group, 1), int), nodes[:, :-1]], -1)
    rows, leaf, step = np.nonzero(node_ids >= 0)
    parents[rows, node_ids[rows, leaf, step]] = before[leaf, step]
    return Trees(leaves, present, where & first[:, place], node_ids, parents, segments)


def arrays_of(trees: Trees, rewards: np.ndarray) -> dict[str, np.ndarray]:
    """:data:`ARRAYS` of trees whose leaves have ``rewards [P, K]``."""
    reached = trees.node_ids.max(-1)  # nodes are numbered level by level
    node_rewards = np.zeros(trees.tree_parent.shape, np.float32)
    rows, leaf = np.nonzero(trees.present)
    node_rewards[rows, reached[rows, leaf]] = rewards[rows, leaf]
    found = (trees.tree_parent, node_rewards, trees.node_ids, trees.segments)
    return dict(zip(ARRAYS, found, strict=True))

"""Values and advantages in rollout trees, and over the edges of sampled graphs. Constants: no gradient flows.

Nodes stand on the last axis ``[..., N]``; ``tree_parent`` holds the number of a node's parent, negative for the root.
A node without children is a leaf, and its outcome reward counts; the rewards of other nodes do not.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.policy import segments
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def num_children(tree_parent: Array, where: Array | None = None) -> Array:
    """How many children every node has, ``[..., N]``.

    >>> print(num_children(jnp.array([-1, 0, 0])))
    [2. 0. 0.]
    """
    ones = jnp.ones(tree_parent.shape, jnp.result_type(float))
    return segments.total(ones, tree_parent, tree_parent.shape[-1], where=where)


def climb(leaves: Array, tree_parent: Array, *, average: bool, where: Array | None = None) -> Array:
    """Sums (or, with ``average``, means) over the children, from the leaves up to the root: ``[..., N]``.

    One step a level: as many steps as the tree is deep, in any order of the nodes.

    >>> print(climb(jnp.array([0.0, 0.0, 1.0, 1.0, 4.0]), jnp.array([-1, 0, 0, 1, 1]), average=True))
    [1.75 2.5  1.   1.   4.  ]
    """
    children = num_children(tree_parent, where).astype(leaves.dtype)
    divisor = jnp.where(average & (children > 0), children, 1)

    def level(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        values, _, done = carry
        summed = segments.total(values, tree_parent, tree_parent.shape[-1], where=where) / divisor
        after = jnp.where(children > 0, summed, leaves)
        return after, (after != values).any(), done + 1

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        return carry[1] & (carry[2] <= tree_parent.shape[-1])

    start = jnp.where(children > 0, 0, leaves), jnp.array(True), jnp.array(0)
    return jax.lax.while_loop(unfinished, level, start)[0]


def over_parent(values: Array, tree_parent: Array, where: Array | None = None) -> Array:
    """A node's value less that of its parent, ``[..., N]``; the root has 0.

    >>> print(over_parent(jnp.array([0.5, 1.0, 0.0]), jnp.array([-1, 0, 0])))
    [ 0.   0.5 -0.5]
    """
    gain = segments.settle(values - segments.spread(values, tree_parent), values)
    return numerics.clean(jnp.where(tree_parent < 0, 0, gain), where)


class TreeValue(NamedTuple):
    """Monte Carlo values of the nodes of a tree, all ``[..., N]``.

    Attributes:
      values: mean outcome of the leaves below a node.
      leaves: how many there are; 1 for a leaf itself.
      over_root: the value less the root's.
      over_parent: the value less the parent's, 0 for the root.
    """

    values: Array
    leaves: Array
    over_root: Array
    over_parent: Array


def tree_mc_value(node_rewards: Array, tree_parent: Array, *, where: Array | None = None) -> TreeValue:
    r"""Monte Carlo value of a step of a search: the mean outcome of all leaves below it, every leaf alike.

    .. math:: V(n) = \frac{1}{|L(n)|} \sum_{l \in L(n)} r_l

    Unlike the mean over children of :func:`spo_tree_advantage` where branches have different numbers of leaves.
    How TreePS-RAG combines the two differences into a process advantage could not be established.

    Args:
      node_rewards: ``[..., N]`` outcome reward of the leaves.
      tree_parent: ``[..., N]`` int, negative for the root.
      where: ``[..., N]`` real nodes.

    Raises:
      UserError: the shapes disagree.

    >>> print(tree_mc_value(jnp.array([0.0, 0.0, 1.0, 1.0, 4.0]), jnp.array([-1, 0, 0, 1, 1])).values)
    [2.  2.5 1.  1.  4. ]

    References:
      *TreePS-RAG*, arXiv:2601.06922.
    """
    check_shapes(node_rewards=node_rewards, tree_parent=tree_parent, where=where)
    rewards = constant(node_rewards, where)
    sums, counts = (
        climb(x, tree_parent, average=False, where=where)
        for x in (rewards, numerics.clean(jnp.ones_like(rewards), where))
    )
    values = numerics.safe_divide(sums, counts)
    root = numerics.sum(values, -1, where=tree_parent < 0, keepdims=True)
    found = values, counts, values - root, over_parent(values, tree_parent)
    return TreeValue(*(numerics.clean(x, where) for x in found))


def spo_tree_value(node_rewards: Array, tree_parent: Array, *, where: Array | None = None) -> Array:
    """Value of a node of SPO's tree, ``[..., N]``: its reward for a leaf, else the mean value of its children.

    >>> print(spo_tree_value(jnp.array([0.0, 0.0, 1.0, 1.0, 4.0]), jnp.array([-1, 0, 0, 1, 1])))
    [1.75 2.5  1.   1.   4.  ]
    """
    check_shapes(node_rewards=node_rewards, tree_parent=tree_parent, where=where)
    return numerics.clean(climb(constant(node_rewards, where), tree_parent, average=True, where=where), where)


def spo_tree_advantage(
    node_rewards: Array,
    tree_parent: Array,
    *,
    scale: bool = False,
    epsilon: float = 1e-8,
    where: Array | None = None,
) -> Array:
    r"""Advantage of a segment in SPO's tree: what its node is worth more than the one it branches from.

    .. math:: A(n) = \frac{V(n) - V(p(n))}{\sigma_{siblings} + \epsilon},\qquad V(n) = \text{mean}_{c} V(c)

    A node is a sample of its own for the loss: its tokens are those of the segment that leads to it. Segments with
    advantage 0 teach nothing and are left out of training (the released filter, which also adds the gain in best-of-4
    success, drops exactly those).

    Args:
      node_rewards: ``[..., N]`` outcome reward of the leaves, 0 or 1.
      tree_parent: ``[..., N]`` int, negative for the root.
      scale: divide by the population deviation over siblings (``grpo`` of the released code; ``rloo`` does not).
      epsilon: added to the deviation.
      where: ``[..., N]`` real nodes.

    Returns:
      ``[..., N, 1]``: broadcasts over the tokens of a node's segment. The root has 0.

    Raises:
      UserError: the shapes disagree.

    >>> print(spo_tree_advantage(jnp.array([0.0, 1.0, 0.0]), jnp.array([-1, 0, 0]))[:, 0])
    [ 0.   0.5 -0.5]

    References:
      Guo et al., *Segment Policy Optimization*, arXiv:2505.23564.
    """
    values = spo_tree_value(node_rewards, tree_parent, where=where)
    gain = over_parent(values, tree_parent, where)
    if scale:
        squares = segments.total(jnp.square(gain), tree_parent, gain.shape[-1], where=where)
        deviation = jnp.sqrt(numerics.safe_divide(squares, num_children(tree_parent, where)))
        gain = gain / (segments.spread(deviation, tree_parent) + epsilon)
    return numerics.clean(gain, where)[..., None]


class EdgeAdvantage(NamedTuple):
    """Advantages of the edges of a graph, and how often graphs with an edge succeed, both ``[..., N, N]``."""

    advantages: Array
    success: Array


def graph_grpo_edge_advantage(
    rewards: Array, edges: Array, *, epsilon: float = 1e-8, where: Array | None = None
) -> EdgeAdvantage:
    r"""Advantage of an edge over a group of sampled graphs (of agents): how well graphs that have it do.

    .. math:: S_{ij} = \frac{\sum_k r_k e^k_{ij}}{\sum_k e^k_{ij}},\qquad
       A_{ij} = \frac{S_{ij} - \mu}{\sigma + \epsilon}

    with the mean and population deviation over the edges that occur. The paper leaves open the kind of deviation, the
    epsilon, and edges that no graph has: those have 0 here.

    Args:
      rewards: ``[..., K]`` of the sampled graphs, the graphs of a task on the last axis.
      edges: ``[..., K, N, N]`` adjacency of every graph, nonzero for an edge from i to j.
      epsilon: added to the deviation.
      where: ``[..., K]`` real graphs.

    Raises:
      UserError: the shapes disagree.

    >>> edges = jnp.array([[[0, 1], [0, 0]], [[0, 0], [1, 0]]])
    >>> print(graph_grpo_edge_advantage(jnp.array([1.0, 0.0]), edges).advantages)
    [[ 0.  1.]
     [-1.  0.]]

    References:
      *Graph-GRPO*, arXiv:2603.02701.
    """
    check_shapes(rewards=rewards[..., None, None], edges=edges)
    check_shapes(rewards=rewards, where=where)
    has = edges != 0 if where is None else (edges != 0) & where[..., None, None]
    outcomes = jnp.broadcast_to(constant(rewards, where)[..., None, None], has.shape)
    success = numerics.mean(outcomes, -3, where=has)
    occurs, over = has.any(-3), (-2, -1)
    centred = segments.settle(success - numerics.mean(success, over, where=occurs, keepdims=True), success)
    spread = jnp.sqrt(numerics.mean(jnp.square(centred), over, where=occurs, keepdims=True))
    return EdgeAdvantage(numerics.clean(centred / (spread + epsilon), occurs), success)

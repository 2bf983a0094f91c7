"""Advantages of the nodes of a tree that are no published method: parts of recipes, by name."""

from rlx import errors
from rlx.policy import trees
from rlx.types import Array

OVER = ("parent", "root")


def mc_tree(node_rewards: Array, tree_parent: Array, *, over: str = "parent", where: Array | None = None) -> Array:
    r"""Advantage of a step by Monte Carlo values, in which every leaf counts alike: ``[..., N, 1]``.

    .. math:: A(n) = V(n) - V(p(n))\quad\text{or}\quad V(n) - V(\text{root})

    with V of :func:`rlx.policy.trees.tree_mc_value`. How TreePS-RAG puts the two differences together could not be
    established; these are the differences themselves.

    Args:
      node_rewards: ``[..., N]`` outcome reward of the leaves.
      tree_parent: ``[..., N]`` int, negative for the root.
      over: ``parent`` or ``root``: what a node is compared with.
      where: ``[..., N]`` real nodes.

    Raises:
      UserError: ``over`` is another word, or the shapes disagree.

    >>> print(mc_tree(jnp.array([0.0, 0.0, 1.0, 0.0]), jnp.array([-1, 0, 1, 1]), over="root")[:, 0])
    [ 0.   0.   0.5 -0.5]

    References:
      *TreePS-RAG*, arXiv:2601.06922.
    """
    if over not in OVER:
        raise errors.UserError(
            f"mc_tree: unknown over={over!r}.{errors.close_matches(over, OVER)} Known: parent, root."
        )
    found = trees.tree_mc_value(node_rewards, tree_parent, where=where)
    return (found.over_parent if over == "parent" else found.over_root)[..., None]

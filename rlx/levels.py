"""Advantages of steps, of nodes of a tree and of edges of a graph, as those of tokens.

An estimator that reads one of ``LEVELS`` gives numbers of something coarser than a token and finer than a response.
Its level says which further arrays lead from there to the tokens: a token has a turn, the turn is a step, and the step
leads to a node or goes along an edge.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from rlx.policy import segments
from rlx.types import Array

Pool = Mapping[str, Array]


class Level(NamedTuple):
    """What an estimator gives numbers of.

    Attributes:
      index: arrays that lead to the tokens.
      by_step: ``(result, pool) -> [..., K, S]``.
      where: ``pool -> ``the mask of what is real; None: the mask of responses.
    """

    index: tuple[str, ...]
    by_step: Callable[[Array, Pool], Array]
    where: Callable[[Pool], Array] | None = None

    def tokens(self, found: Array, pool: Pool) -> Array:
        """``[..., K, T]``, 0 at tokens of no step.

        >>> pool = {"turn_ids": jnp.array([[0, 0, -1, 1]])}
        >>> print(rlx.levels.STEPS.tokens(jnp.array([[[5.0], [7.0]]]), pool))
        [[5. 5. 0. 7.]]
        """
        return segments.spread(self.by_step(found, pool), pool["turn_ids"])


STEPS = Level(("turn_ids", "state_ids"), lambda found, pool: found[..., 0], lambda pool: pool["state_ids"] >= 0)
"""Steps of an episode: ``[..., K, S, 1]``."""
AGENTS = Level(("turn_ids",), lambda found, pool: found)
"""Agents, one a turn: ``[..., K, S]``."""
NODES = Level(
    ("turn_ids", "node_ids"),
    lambda found, pool: segments.spread(found[..., None, :, 0], pool["node_ids"]),
    lambda pool: pool["tree_parent"] >= -1,
)
"""Nodes of the tree that the responses to a prompt make up: ``[..., N, 1]``."""
EDGES = Level(
    ("turn_ids", "edge_ids"),
    lambda found, pool: segments.spread(found.reshape(*found.shape[:-2], 1, -1), pool["edge_ids"]),
)
"""Edges that the responses to a prompt go along: ``[..., N, N]``."""

LEVELS = {"step_rewards": STEPS, "agent_rewards": AGENTS, "tree_parent": NODES, "edges": EDGES}
"""Array -> the level of an estimator that reads it."""

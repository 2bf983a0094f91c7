"""Finished episodes of a group as a tree of their actions, as walks on a graph of states, and as the work of agents.

``to_arrays`` tells of each episode by itself; these arrays tell how the episodes of a group hang together.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from rlx.rollout.episodes import Episode

Groups = Sequence[Sequence[Episode]]
ABSENT = -2
"""``tree_parent`` of a node that the tree does not have; the root's is -1."""


def tree(groups: Groups) -> dict[str, np.ndarray]:
    """Returns the tree of each group: episodes that begin with the same actions share the nodes of these.

    Returns:
        * ``tree_parent, node_rewards [P, N]`` with N = K * S + 1: node 0 is the start; the reward of a leaf is the sum
          over its episode
        * ``node_ids [P, K, S]`` the node that a step leads to, -1 for none
    """
    shape = (len(groups), len(groups[0]), groups[0][0].shape.turns)
    nodes = shape[1] * shape[2] + 1
    parent = np.full((shape[0], nodes), ABSENT, np.int32)
    rewards, ids = np.zeros(parent.shape, np.float32), np.full(shape, -1, np.int32)
    for p, group in enumerate(groups):
        known: dict[tuple, int] = {(): 0}
        parent[p, 0] = -1
        for k, episode in enumerate(group):
            path: tuple = ()
            for s, step in enumerate(episode.steps):
                before, path = known[path], (*path, tuple(step.action))
                ids[p, k, s] = known.setdefault(path, len(known))
                parent[p, ids[p, k, s]] = before
            rewards[p, known[path]] = sum(step.reward for step in episode.steps)
    return {"tree_parent": parent, "node_rewards": rewards, "node_ids": ids}


def graph(groups: Groups) -> dict[str, np.ndarray]:
    """Returns the transitions between the states that a group met, those in which its episodes ended among them.

    Returns:
        * ``edges [P, K, N, N]`` true where an episode went from state i to state j, with N = K * (S + 1)
        * ``edge_ids [P, K, S]`` i * N + j of a step, -1 for none
    """
    shape = (len(groups), len(groups[0]), groups[0][0].shape.turns)
    nodes = shape[1] * (shape[2] + 1)
    edges, ids = np.zeros((*shape[:2], nodes, nodes), bool), np.full(shape, -1, np.int32)
    for p, group in enumerate(groups):
        known: dict[Hashable, int] = {}
        for k, episode in enumerate(group):
            states = [*(step.state for step in episode.steps), episode.state]
            met = [known.setdefault(state, len(known)) for state in states]
            for s, (i, j) in enumerate(zip(met, met[1:], strict=False)):
                edges[p, k, i, j], ids[p, k, s] = True, i * nodes + j
    return {"edges": edges, "edge_ids": ids}


def agents(groups: Groups) -> dict[str, np.ndarray]:
    """Returns ``agent_rewards [P, K, S]``: a turn is the work of an agent of its own, with the reward of its step."""
    shape = (len(groups), len(groups[0]), groups[0][0].shape.turns)
    rewards = np.zeros(shape, np.float32)
    for p, group in enumerate(groups):
        for k, episode in enumerate(group):
            rewards[p, k, : len(episode.steps)] = [step.reward for step in episode.steps]
    return {"agent_rewards": rewards}


ARRAYS: dict[str, Callable[[Groups], dict[str, np.ndarray]]] = {
    "tree_parent": tree,
    "edges": graph,
    "agent_rewards": agents,
}
"""An array that a method reads -> what makes it, and all that goes with it."""

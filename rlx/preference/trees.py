"""Monte Carlo tree search over reasoning steps: backup, scores and step rewards, in NumPy; nodes are numbered.

Parents stand before their children; the root is node 0, whose parent is -1. Arrays are ``[N]``.
"""

from typing import NamedTuple

import numpy as np

from rlx import errors


class Backup(NamedTuple):
    """A tree after a backup.

    Attributes:
      q_values: ``[N]`` value of the step into a node.
      state_values: ``[N]`` value of a node.
      visits: ``[N]`` int.
    """

    q_values: np.ndarray
    state_values: np.ndarray
    visits: np.ndarray


def check_tree(parents: np.ndarray) -> np.ndarray:
    """The parents as integers; a UserError says which node is in the wrong place.

    >>> check_tree([-1, 0, 3])
    Traceback (most recent call last):
    rlx.errors.UserError: parents[2] is 3: node 0 is the root, with parent -1, and a parent stands before its children.
    """
    parents = np.asarray(parents, int)
    for node, parent in enumerate(parents):
        if not (parent == -1 if node == 0 else 0 <= parent < node):
            raise errors.UserError(
                f"parents[{node}] is {parent}: node 0 is the root, with parent -1, and a parent stands before its "
                "children."
            )
    return parents


def step_rewards(values: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Gain of a step, the value of a node less that of its parent; the root keeps its own.

    >>> print(step_rewards([1.0, 3.0, 2.0], [-1, 0, 1]))
    [ 1.  2. -1.]
    """
    parents, values = check_tree(parents), np.asarray(values, float)
    return np.where(parents < 0, values, values - values[np.maximum(parents, 0)])


def step_priors(logprobs: np.ndarray, lengths: np.ndarray, *, length_penalty: float = 1.25) -> np.ndarray:
    r"""How likely the policy is to take a step: :math:`\exp(\sum_t \log\pi(y_t) / |y|^p)`; an empty step divides by 1.

    >>> print(step_priors([np.log(0.25)], [2], length_penalty=1.0))
    [0.5]
    """
    return np.exp(np.asarray(logprobs, float) / np.maximum(np.asarray(lengths, float), 1) ** length_penalty)


def puct(
    q_values: np.ndarray, priors: np.ndarray, visits: np.ndarray, parents: np.ndarray, *, w_exp: float = 1.0
) -> np.ndarray:
    r"""Score by which a search picks the next child: :math:`Q + w\,p\,\sqrt{N_{parent}}/(1 + N)`; 0 for the root.

    >>> print(puct([0.0, 0.5], [1.0, 0.5], [4, 1], [-1, 0]))
    [0. 1.]
    """
    parents, visits = check_tree(parents), np.asarray(visits, float)
    bonus = w_exp * np.asarray(priors, float) * np.sqrt(visits[np.maximum(parents, 0)]) / (1 + visits)
    return np.where(parents < 0, 0, np.asarray(q_values, float) + bonus)


def select_path(scores: np.ndarray, parents: np.ndarray, *, depth_limit: int = 5) -> list[int]:
    """Nodes from the root down, to the child of the highest score (:func:`puct`) each time, the first of equal ones.

    It ends at a node without children, or ``depth_limit`` steps down (the paper's 5): the path that
    :func:`mcts_backup` takes.

    >>> select_path([0.0, 1.0, 3.0, 9.0, 2.0], [-1, 0, 0, 1, 2])
    [0, 2, 4]
    """
    parents, scores = check_tree(parents), np.asarray(scores, float)
    path = [0]
    while len(path) <= depth_limit and len(children := np.flatnonzero(parents == path[-1])):
        path.append(int(children[scores[children].argmax()]))
    return path


def mcts_backup(
    parents: np.ndarray,
    values: np.ndarray,
    visits: np.ndarray,
    state_values: np.ndarray,
    path: np.ndarray,
    *,
    gamma: float = 1.0,
) -> Backup:
    r"""Backs a visit up from a leaf to the root.

    .. math:: V(s) = \frac{\sum_c \max(1, N_c)\,Q_c}{\sum_c \max(1, N_c)},\quad Q = r + \gamma V,\quad
       r = \text{value} - \text{value}_{parent}

    Every node on the path is visited once more; from the leaf up, its value is taken from its children and its Q from
    its value. The root has no step into it, and keeps its Q.

    Args:
      parents: ``[N]`` int.
      values: ``[N]`` assessment of the node (a correctness or a self-evaluation).
      visits: ``[N]`` int, before the backup.
      state_values: ``[N]`` V before the backup; that of nodes without children is their estimate.
      path: ``[depth + 1]`` int, from the root to the leaf.
      gamma: discount.

    Raises:
      UserError: the tree is out of order, the arrays differ in length, or the path is not one from the root.

    >>> found = mcts_backup([-1, 0, 0], [0.0, 1.0, 0.0], [1, 0, 1], [0.0, 0.0, 0.0], [0, 1])
    >>> print(found.q_values, found.state_values, found.visits)
    [0. 1. 0.] [0.5 0.  0. ] [2 1 1]

    References:
      Xie et al., *Monte Carlo Tree Search Boosts Reasoning via Iterative Preference Learning*, arXiv:2405.00451.
    """
    parents, path = check_tree(parents), np.asarray(path, int)
    v, n = np.array(state_values, float), np.array(visits, int)
    if not len(parents) == len(np.asarray(values)) == len(v) == len(n):
        raise errors.UserError(f"parents, values, visits and state_values must have one entry a node, {len(parents)}.")
    if not len(path) or path[0] != 0 or (parents[path[1:]] != path[:-1]).any():
        raise errors.UserError(f"path must lead from the root, node 0, down to a leaf, got {path.tolist()}.")
    rewards = step_rewards(values, parents)
    q = rewards + gamma * v
    for node in path[::-1]:
        children = np.flatnonzero(parents == node)
        if len(children) and node != path[-1]:
            v[node] = np.average(q[children], weights=np.maximum(1, n[children]))
        n[node] += 1
        q[node] = q[node] if node == 0 else rewards[node] + gamma * v[node]
    return Backup(q, v, n)

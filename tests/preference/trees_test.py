"""Search trees: a backup by hand, what it leaves alone, errors."""

import numpy as np
import pytest

from rlx import errors
from rlx.preference import trees

PARENTS = [-1, 0, 0, 1, 1]


def test_a_backup_by_hand():
    """Leaf 4 has Q = 0.5 - 0.2 + 0.9 * 1; its parent's V is the visit-weighted mean with it at its new count."""
    values, states = [0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.0, 0.6, 0.7, 1.0]
    found = trees.mcts_backup(PARENTS, values, [5, 3, 0, 2, 0], states, [0, 1, 4], gamma=0.9)
    q3, q4 = 0.2 + 0.9 * 0.7, 0.3 + 0.9
    v1 = (2 * q3 + 1 * q4) / 3
    q1, q2 = 0.1 + 0.9 * v1, 0.2 + 0.9 * 0.6
    v0 = (4 * q1 + q2) / 5
    np.testing.assert_allclose(found.state_values, [v0, v1, 0.6, 0.7, 1.0])
    np.testing.assert_allclose(found.q_values, [0.1, q1, q2, q3, q4])
    np.testing.assert_array_equal(found.visits, [6, 4, 0, 2, 1])


def search(scores, depth_limit):
    """A path from the recursive definition, on a dict of children."""
    children = {}
    for node, parent in enumerate(PARENTS):
        children.setdefault(parent, []).append(node)

    def down(node, depth):
        if node not in children or depth == depth_limit:
            return [node]
        return [node, *down(max(children[node], key=lambda c: scores[c]), depth + 1)]

    return down(0, 0)


@pytest.mark.parametrize("depth_limit", [0, 1, 5])
def test_selection_follows_the_best_score(depth_limit):
    for seed in range(10):
        scores = np.random.default_rng(seed).integers(0, 3, 5)
        assert trees.select_path(scores, PARENTS, depth_limit=depth_limit) == search(scores, depth_limit)


def test_a_search_visits_the_better_leaf_most():
    """Two leaves of known value: the counts add up to the visits, the better one has most, V is between the two."""
    parents, values, states = [-1, 0, 0], [0.0, 0.2, 0.8], np.zeros(3)
    visits, q = np.zeros(3, int), trees.step_rewards(values, parents)
    for _ in range(40):
        path = trees.select_path(trees.puct(q, [1.0, 0.5, 0.5], visits, parents), parents)
        q, states, visits = trees.mcts_backup(parents, values, visits, states, path)
    assert visits[0] == 40 == visits[1:].sum() and visits[2] > 30
    np.testing.assert_allclose(states[0], visits[1:] @ [0.2, 0.8] / 40)


def test_an_empty_step_has_a_prior():
    np.testing.assert_allclose(trees.step_priors([0.0, -4.0], [0, 2], length_penalty=2.0), [1, np.exp(-1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": [0, 0, 0, 1, 1]}, r"parents\[0\] is 0: node 0 is the root"),
        ({"parents": [-1, 0, 3, 1, 1]}, r"parents\[2\] is 3: .* a parent stands before its children"),
        ({"visits": [1, 1]}, "must have one entry a node, 5"),
        ({"path": [0, 4]}, r"path must lead from the root, node 0, down to a leaf, got \[0, 4\]"),
        ({"path": []}, "path must lead from the root"),
    ],
)
def test_wrong_trees_are_named(change, message):
    tree = {
        "parents": PARENTS,
        "values": np.zeros(5),
        "visits": np.ones(5),
        "state_values": np.zeros(5),
        "path": [0, 1],
    }
    with pytest.raises(errors.UserError, match=message):
        trees.mcts_backup(**tree | change)

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

"""Advantages of nodes by Monte Carlo values."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx.errors import UserError
from rlx.policy.tree_parts import mc_tree
from rlx.policy.trees import tree_mc_value

REWARDS = jnp.array([0.0, 0.0, 1.0, 1.0, 4.0, 9.0])
PARENT = jnp.array([-1, 0, 0, 1, 1, -2])
REAL = jnp.arange(6) < 5


@pytest.mark.parametrize("over", ["parent", "root"])
def test_a_node_is_compared_with_its_parent_or_the_root(over):
    found = mc_tree(REWARDS, PARENT, over=over, where=REAL)
    values = np.asarray(tree_mc_value(REWARDS, PARENT, where=REAL).values)
    other = values[np.maximum(np.asarray(PARENT), 0)] if over == "parent" else values[0]
    np.testing.assert_allclose(found[:, 0], np.where(REAL, values - other, 0), atol=1e-6)
    assert found.shape == (6, 1) and found[5, 0] == 0


def test_what_it_is_compared_with_is_one_of_two_words():
    with pytest.raises(UserError, match="mc_tree: unknown over='roof'. Did you mean 'root'"):
        mc_tree(REWARDS, PARENT, over="roof")

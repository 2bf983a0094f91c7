"""Trees in any order and of any depth against recursion, and special cases of graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import advantages, trees

PARENT = np.array([3, 3, 0, -1, 0, 4, 4, 4, 1])  # the root in the middle, children before and after parents
# whole programs compile faster than their operations one by one
tree_mc_value, spo_tree_value = jax.jit(trees.tree_mc_value), jax.jit(trees.spo_tree_value)
spo_tree_advantage = jax.jit(trees.spo_tree_advantage, static_argnames="scale")
graph_grpo_edge_advantage = jax.jit(trees.graph_grpo_edge_advantage)
REWARDS = np.arange(9.0, dtype=np.float32)


def recursion(node: int) -> tuple[float, float, int]:
    """Mean over children, sum over leaves, leaves."""
    children = np.flatnonzero(node == PARENT)
    if not len(children):
        return float(REWARDS[node]), float(REWARDS[node]), 1
    below = [recursion(child) for child in children]
    return np.mean([b[0] for b in below]), sum(b[1] for b in below), sum(b[2] for b in below)


def test_values_of_any_order() -> None:
    expected = np.array([recursion(node) for node in range(9)])
    found = tree_mc_value(jnp.asarray(REWARDS), jnp.asarray(PARENT))
    np.testing.assert_allclose(found.leaves, expected[:, 2])
    np.testing.assert_allclose(found.values, expected[:, 1] / expected[:, 2], rtol=1e-6)
    np.testing.assert_allclose(found.over_root, found.values - found.values[3], rtol=1e-6)
    np.testing.assert_allclose(spo_tree_value(REWARDS, jnp.asarray(PARENT)), expected[:, 0], rtol=1e-6)


def test_padding_nodes_are_no_leaves() -> None:
    parent = jnp.append(jnp.asarray(PARENT), jnp.array([0, 9]))
    rewards = jnp.append(jnp.asarray(REWARDS), jnp.array([jnp.nan, jnp.nan]))
    where = jnp.arange(11) < 9
    for function in (tree_mc_value, spo_tree_advantage):
        whole, cut = function(rewards, parent, where=where), function(jnp.asarray(REWARDS), jnp.asarray(PARENT))
        for a, b in zip(
            whole if isinstance(whole, tuple) else [whole], cut if isinstance(cut, tuple) else [cut], strict=True
        ):
            np.testing.assert_allclose(a[:9], b, rtol=1e-6)
            np.testing.assert_array_equal(a[9:], 0)


def test_rewards_keep_their_type_beside_wider_ones() -> None:
    """Runs in float64 read rewards in float32."""
    with jax.enable_x64(True):
        found = [f(REWARDS, jnp.asarray(PARENT)) for f in (spo_tree_value, spo_tree_advantage)]
        assert {leaf.dtype for leaf in found} == {np.dtype(np.float32)}
        assert tree_mc_value(REWARDS, jnp.asarray(PARENT)).values.dtype == np.float32


def test_a_chain_as_deep_as_it_is_long() -> None:
    found = spo_tree_value(jnp.array([0.0] * 40 + [3.0]), jnp.arange(-1, 40))
    np.testing.assert_array_equal(found, 3)


@pytest.mark.parametrize("scale", [True, False])
def test_a_tree_of_one_level_is_grpo(scale: bool) -> None:
    rewards = jnp.array([1.0, 0.0, 0.0, 1.0, 0.0])
    tree = spo_tree_advantage(jnp.append(0.0, rewards), jnp.array([-1, 0, 0, 0, 0, 0]), scale=scale)
    flat = advantages.grpo_advantage(rewards, scale=scale, ddof=0, epsilon=1e-8)
    np.testing.assert_allclose(tree[1:], flat, rtol=1e-5)
    assert tree[0] == 0


def test_balanced_trees_weigh_leaves_and_children_alike() -> None:
    rewards, parent = jnp.array([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0]), jnp.array([-1, 0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(tree_mc_value(rewards, parent).values, spo_tree_value(rewards, parent))


def test_equal_siblings_teach_nothing_however_small_epsilon_is() -> None:
    rewards = jnp.full(8, 0.1, jnp.float32)
    np.testing.assert_array_equal(spo_tree_advantage(rewards, jnp.array([-1] + [0] * 7), scale=True), 0)


def test_graphs_that_differ_in_one_edge_are_two_arms() -> None:
    """Every graph has one edge of two: S is the mean reward of an arm."""
    edges = jnp.zeros((4, 2, 2)).at[:2, 0, 1].set(1).at[2:, 1, 0].set(1)
    found = graph_grpo_edge_advantage(jnp.array([1.0, 0.0, 0.0, 0.0]), edges, epsilon=0.0)
    np.testing.assert_allclose(found.success, [[0, 0.5], [0, 0]])
    np.testing.assert_allclose(found.advantages, [[0, 1], [-1, 0]])


def test_graphs_without_any_edge() -> None:
    found = graph_grpo_edge_advantage(jnp.ones(3), jnp.zeros((3, 2, 2)))
    np.testing.assert_array_equal(found.advantages, 0)


def test_graphs_need_an_adjacency_each() -> None:
    with pytest.raises(errors.UserError, match=r"edges has shape \(3, 2, 2\), but rewards has shape \(4, 1, 1\)"):
        graph_grpo_edge_advantage(jnp.ones(4), jnp.zeros((3, 2, 2)))

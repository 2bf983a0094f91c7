"""Estimators of steps, nodes, edges and agents within recipes: their numbers reach the tokens of the right turn."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import levels, stages

TURNS = np.array([[[0, 0, -1, 1], [0, -1, 1, 1]]])
STATES = np.array([[[0, 1], [0, 2]]])
WHERE = TURNS >= 0


def advantages(name: str, **arrays) -> np.ndarray:
    """The advantages that a recipe with this estimator gives to tokens."""
    pool = {name: jnp.asarray(array) for name, array in arrays.items()}
    pool |= {"turn_ids": jnp.asarray(TURNS), "group_where": jnp.ones((1, 2), bool)}
    (part,) = stages.parts_of("advantage", name)
    return np.asarray(stages.Run(pool, jnp.asarray(WHERE), None, None).tokens(part))


def test_steps():
    found = advantages("gigpo(gamma=1.0)", step_rewards=[[[0.0, 1.0], [0.0, 0.0]]], state_ids=STATES)
    np.testing.assert_allclose(found, [[[1, 1, 0, 0.5], [-1, 0, -0.5, -0.5]]])


def test_a_step_that_was_not_taken_counts_for_nothing():
    rewards, states = [[[0.0, 1.0], [0.0, np.nan]]], [[[0, 1], [0, -1]]]
    found = advantages("gigpo(gamma=1.0)", step_rewards=rewards, state_ids=np.array(states))
    np.testing.assert_allclose(found[0, 0], [1, 1, 0, 0.5])
    assert np.isfinite(found).all()


def test_nodes():
    tree = {"tree_parent": np.array([[-1, 0, 1, 1, -2]]), "node_rewards": np.array([[0.0, 0, 1, 0, 9]])}
    found = advantages("spo_tree", node_ids=np.array([[[1, 2], [1, 3]]]), **tree)
    np.testing.assert_allclose(found, [[[0, 0, 0, 0.5], [0, 0, -0.5, -0.5]]])


def test_edges():
    edges = np.zeros((1, 2, 3, 3), bool)
    edges[0, 0, 0, 1] = edges[0, 1, 0, 2] = True
    found = advantages(
        "graph_grpo_edge", rewards=np.array([[1.0, 0.0]]), edges=edges, edge_ids=np.array([[[1, -1], [2, -1]]])
    )
    np.testing.assert_allclose(found, [[[1, 1, 0, 0], [-1, 0, 0, 0]]], atol=1e-6)


def test_agents():
    own = np.array([[[0.9, 0.1], [0.2, 0.8]]])
    found = advantages("comam_credit", rewards=np.array([[1.0, 0.0]]), agent_rewards=own)
    assert found.shape == TURNS.shape and (found[0, 0, :2] > 0).all() and (found[0, 1, 2:] != 0).all()
    np.testing.assert_array_equal(found[~WHERE], 0)


@pytest.mark.parametrize("name", ["gigpo", "spo_tree", "graph_grpo_edge", "comam_credit"])
def test_a_recipe_says_what_it_reads(name):
    built = rlx.build({"name": "grpo", "advantage": name})
    (part,) = stages.parts_of("advantage", name)
    assert part.level is not None and {*part.required, *part.level.index} <= set(built.prepare_needs)
    assert set(built.prepare_needs) <= set(rlx.types.VOCABULARY)


def test_levels_are_known_by_arrays_of_the_vocabulary():
    assert set(levels.LEVELS) <= set(rlx.types.VOCABULARY)

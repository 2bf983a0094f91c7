"""Fork points: ties, missing ones, mistakes."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import branching


def test_ties_go_by_position_and_short_responses_have_fewer_forks() -> None:
    entropy, where = jnp.array([[1.0, 2.0, 2.0], [5.0, 1.0, jnp.nan]]), jnp.array([[True] * 3, [True, True, False]])
    found = branching.etmr_fork_positions(entropy, num_forks=4, num_branches=3, where=where)
    np.testing.assert_array_equal(found.positions, [[1, 2, 0, -1], [0, 1, -1, -1]])
    assert found.rollouts == 2 + 3 * 5


def test_a_masked_entry_never_comes_before_an_infinite_one() -> None:
    found = branching.largest(jnp.array([-jnp.inf, 3.0, 1.0]), 3, where=jnp.array([True, False, True]))
    np.testing.assert_array_equal(found, [2, 0, -1])


def test_impossible_tokens_add_no_entropy() -> None:
    logprobs = jnp.log(jnp.array([[[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]]]))
    found = branching.tool_light_branching(logprobs, prefix_lengths=[1, 9], num_positions=1)
    np.testing.assert_allclose(found.max_entropy, [np.log(2), 0], rtol=1e-6)
    np.testing.assert_array_equal(found.best_prefix, [1, 1])  # a prefix beyond the step is the step


def test_steps_without_tokens_are_not_chosen() -> None:
    logprobs, where = jnp.zeros((3, 2, 2)), jnp.array([[False, False], [True, True], [True, False]])
    found = branching.tool_light_branching(logprobs, num_positions=3, where=where)
    np.testing.assert_array_equal(found.selected, [1, 2, -1])


@pytest.mark.parametrize("name", ["num_forks", "num_branches"])
def test_counts_of_forks(name: str) -> None:
    with pytest.raises(errors.UserError, match=f"{name} must be at least 1, got 0"):
        branching.etmr_fork_positions(jnp.zeros((1, 3)), **{name: 0})


@pytest.mark.parametrize("keywords", [{"prefix_lengths": ()}, {"prefix_lengths": (0, 5)}, {"num_positions": 0}])
def test_counts_of_steps(keywords: dict) -> None:
    with pytest.raises(errors.UserError, match="must be at least 1, got 0"):
        branching.tool_light_branching(jnp.zeros((1, 3, 2)), **keywords)

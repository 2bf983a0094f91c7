"""Rewards by entropy: phases that are not there, difficulty at its edges, bounds, errors."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import entropy


def test_pear_without_a_closing_token_is_all_thinking():
    tokens = jnp.array([[0.5, 0.25, 9.0]])
    where = jnp.array([[True, True, False]])
    np.testing.assert_allclose(entropy.pear(tokens, jnp.array([1]), jnp.array([-1]), where=where), 0.625)
    np.testing.assert_allclose(entropy.pear(tokens, jnp.array([0]), jnp.array([-1]), format_score=0.1), 0.1)
    np.testing.assert_allclose(entropy.pear(tokens, jnp.array([1]), jnp.array([0]), where=where, score=2.0), 1)


def test_difficulty_is_exact_at_thirds():
    correct = np.tril(np.ones((7, 6)), -1)
    np.testing.assert_array_equal(entropy.difficulty(correct)[:, 0], [2, 2, 1, 1, 0, 0, 0])
    ragged = entropy.difficulty(jnp.array([[1.0, 1, 0, np.nan]]), where=jnp.array([[True, True, True, False]]))
    assert ragged.item() == 0


@pytest.mark.parametrize(("level", "right"), [(0, 1), (1, 1), (2, 1), (0, 0), (1, 0), (2, 0)])
def test_ares_stays_within_its_cap_and_grows_with_alpha(level, right):
    counts = jnp.array([0, 5, 10, 20, 10_000])
    of = lambda alpha: entropy.ares_entropy_reward(counts, jnp.full(5, right), jnp.full(5, level), alpha=alpha)  # noqa: E731
    cap = 1.2 if level == 2 else 1.0
    assert (np.abs(of(1.0)) <= cap).all()
    np.testing.assert_allclose(of(2.0), 2 * of(1.0), rtol=1e-6)


def test_errors():
    with pytest.raises(errors.UserError, match="think_ends"):
        entropy.pear(jnp.zeros((2, 4)), jnp.zeros(2), jnp.zeros(3))

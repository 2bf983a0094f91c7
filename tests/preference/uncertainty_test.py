"""UPO: what its estimator knows, and that the printed smoothing reverses preferences."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.preference import pairwise, uncertainty

POLICY, REFERENCE = jnp.array([[-3.0, -4.0], [-2.0, -9.0]]), jnp.array([[-3.5, -3.0], [-2.0, -8.0]])
PROBS = jnp.array([[0.9, 0.8, 0.85], [0.1, 0.9, 0.6]])


def test_information_gain_is_disagreement_not_doubt():
    """Members that all say one half know that they do not know; certainty at 0 and 1 is finite."""
    gains = uncertainty.information_gain(jnp.array([[0.5, 0.5], [0.0, 1.0], [1.0, 1.0], [0.9, 0.2]]))
    np.testing.assert_allclose(gains[:3], [0.0, np.log(2), 0.0], atol=1e-6)
    assert 0 < gains[3] < np.log(2)


def test_the_printed_smoothing_is_at_least_one_half():
    alpha = uncertainty.smoothing(PROBS, mu=2.0)
    assert (alpha >= 0.5).all()
    slope = jax.grad(lambda p: uncertainty.upo(p, REFERENCE, PROBS, beta=1e-3))(POLICY)
    assert (slope[:, 0] > 0).all()  # at small margins the chosen response is pushed down


def test_a_smoothing_of_your_own_learns_the_stated_preferences():
    found = uncertainty.upo(POLICY, REFERENCE, PROBS, alpha=jnp.array([0.1, 0.3]))
    expected = pairwise.dpo(POLICY, REFERENCE, label=jnp.array([0.9, 0.7]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    found = uncertainty.upo(POLICY, REFERENCE, PROBS, alpha=0.0)
    np.testing.assert_allclose(found, pairwise.dpo(POLICY, REFERENCE), rtol=1e-6)


def test_masked_pairs_take_no_share_of_the_distribution():
    where = jnp.array([[True, True], [False, True]])
    found = uncertainty.sampling_probs(PROBS.at[1].set(jnp.nan), where=where)
    np.testing.assert_array_equal(found, [1.0, 0.0])

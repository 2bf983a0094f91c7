"""Ranks, discounts and pairs: ties, masks, cutoffs."""

import jax.numpy as jnp
import numpy as np

from rlx.preference import ranking


def test_ties_rank_by_position_and_masked_candidates_last():
    keys, where = jnp.array([1.0, 1.0, jnp.nan, -jnp.inf, 2.0]), jnp.array([True, True, False, True, True])
    np.testing.assert_array_equal(ranking.rank(keys, where), [2, 3, 5, 4, 1])


def test_the_ideal_gain_is_the_largest():
    gains = np.random.default_rng(0).exponential(size=(6, 5)).astype(np.float32)
    ideal = ranking.cumulative_gain(jnp.asarray(gains), gains, topn=3)
    for keys in np.random.default_rng(1).normal(size=(4, 6, 5)):
        assert (ranking.cumulative_gain(jnp.asarray(gains), jnp.asarray(keys), topn=3) <= ideal + 1e-6).all()
    np.testing.assert_allclose(ideal, (-np.sort(-gains)[:, :3] / np.log2([2, 3, 4])).sum(-1), rtol=1e-6)


def test_masked_candidates_are_in_no_pair():
    pairs = ranking.better(jnp.array([0, 1, 2]), jnp.array([True, True, False]))
    np.testing.assert_array_equal(np.argwhere(np.asarray(pairs)), [[1, 0]])
    assert ranking.flat(pairs).shape == (9,)

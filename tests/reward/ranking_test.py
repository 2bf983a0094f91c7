"""Ranking accuracy: the threshold on the loss, certain preferences, ties, lengths."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import ranking

RNG = np.random.default_rng(0)
POLICY, REFERENCE = (jnp.asarray(-RNG.exponential(5, (40, 2)), jnp.float32) for _ in range(2))
PROBABILITY = jnp.asarray(RNG.random(40), jnp.float32)


def test_a_pair_is_ranked_right_exactly_below_the_threshold():
    found = ranking.ranking_accuracy(POLICY, REFERENCE, PROBABILITY)
    np.testing.assert_array_equal(found.correct == 1, found.dpo_loss <= found.dpo_loss_threshold)
    assert 0 < found.correct.mean() < 1 and not np.array_equal(found.correct, found.implicit_correct)


def test_the_ideal_policy_itself_is_ranked_as_said():
    beta = 0.5
    gain = jnp.log(PROBABILITY / (1 - PROBABILITY)) / beta
    ideal = REFERENCE + jnp.stack([gain, jnp.zeros(40)], -1)
    found = ranking.ranking_accuracy(ideal, REFERENCE, PROBABILITY, beta=beta)
    np.testing.assert_array_equal(found.correct, found.idealized_correct)


def test_a_certain_preference_has_an_infinite_ideal_ratio():
    found = ranking.ranking_accuracy(POLICY, REFERENCE, jnp.ones(40))
    assert np.isposinf(found.idealized_log_ratio).all() and found.idealized_correct.all()


def test_ties_are_right_and_lengths_decide():
    tied = jnp.array([[-4.0, -4.0]])
    options = {"length_normalize": True}
    assert ranking.ranking_accuracy(tied, tied, jnp.ones(1) / 2).correct == 1
    assert ranking.ranking_accuracy(tied, tied, jnp.ones(1) / 2, jnp.array([[2, 4]]), **options).correct == 0
    with pytest.raises(errors.UserError, match="needs lengths"):
        ranking.ranking_accuracy(tied, tied, jnp.ones(1) / 2, **options)

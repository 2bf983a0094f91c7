"""Corrections of the sampler: weights over shards, which side a bound is on, errors."""

import numpy as np
import pytest

from rlx import errors
from rlx.policy import corrections

NOW = np.log(np.array([[0.5, 0.5], [0.5, 0.2]], np.float32))
THEN = np.log(np.array([[0.5, 0.1], [0.5, 0.4]], np.float32))


def test_the_ratio_of_a_response_is_the_product_of_its_tokens():
    weights = corrections.truncated_importance_sampling(NOW, THEN, level="sequence", threshold=4.0)
    np.testing.assert_allclose(weights, [[4, 4], [0.5, 0.5]], rtol=1e-6)


def test_the_mean_weight_is_one_when_normalised():
    """A response counts once at the level of responses, however long it is."""
    where = np.array([[True, True], [True, False]])
    for level in ("token", "sequence"):
        options = {"level": level, "threshold": 3.0, "batch_normalize": True, "where": where}
        weights = np.asarray(corrections.truncated_importance_sampling(NOW, THEN, **options))
        mean = weights[where].mean() if level == "token" else (weights[0].mean() + weights[1, 0]) / 2
        np.testing.assert_allclose(mean, 1, rtol=1e-6)
    nothing = corrections.truncated_importance_sampling(NOW, THEN, batch_normalize=True, where=np.zeros((2, 2), bool))
    np.testing.assert_array_equal(nothing, 0)


def test_k1_bounds_the_sampler_over_the_policy():
    keep = lambda bounds: corrections.rollout_rejection_sampling(NOW, THEN, criteria={"token_k1": bounds})  # noqa: E731
    np.testing.assert_array_equal(keep((0.1, 1.5)), [[True, True], [True, False]])  # pi_rollout / pi_train is 0.2 and 2
    np.testing.assert_array_equal(keep((0.5, 3.0)), [[True, False], [True, True]])
    np.testing.assert_array_equal(keep(3.0), keep((1 / 3, 3.0)))
    np.testing.assert_array_equal(keep(3.0), keep([1 / 3, 3.0]))  # what a config file makes of a pair


def test_every_criterion_must_hold():
    both = corrections.rollout_rejection_sampling(NOW, THEN, criteria={"token_k1": (0.1, 3.0), "seq_max_k2": 0.5})
    np.testing.assert_array_equal(both, [[False, False], [True, True]])
    np.testing.assert_array_equal(corrections.rollout_rejection_sampling(NOW, THEN, criteria={}), np.ones((2, 2)))


def test_a_good_response_stays_however_old():
    keep = corrections.off_policy_sequence_mask(NOW, THEN + 9, np.array([[0.0], [-1e-9]]))
    np.testing.assert_array_equal(keep, [[True, True], [False, False]])


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"sequence_k1": 2.0}, r"Unknown criterion 'sequence_k1'.*Known: token_k1"),
        ({"token_k4": 2.0}, r"Unknown criterion 'token_k4'. Did you mean 'token_k"),
        ({"token_k2": (0.1, 0.2)}, r"token_k2 has an upper bound, one number; got \(0.1, 0.2\)"),
        ({"token_k1": (2.0, 0.5)}, r"token_k1 bounds a ratio: \(lower, upper\), or a number from 1 on"),
        ({"token_k1": 0.5}, "token_k1 bounds a ratio"),
        ({"token_k1": 0.0}, "token_k1 bounds a ratio"),
    ],
)
def test_wrong_criteria(criteria, message):
    with pytest.raises(errors.UserError, match=message):
        corrections.rollout_rejection_sampling(NOW, THEN, criteria=criteria)


def test_wrong_options():
    with pytest.raises(errors.UserError, match="level must be 'token' or 'sequence', got 'sequences'. Did you mean"):
        corrections.truncated_importance_sampling(NOW, THEN, level="sequences")
    with pytest.raises(errors.UserError, match="threshold must be above 0"):
        corrections.truncated_importance_sampling(NOW, THEN, threshold=0.0)
    with pytest.raises(errors.UserError, match="rollout_logprobs has shape"):
        corrections.off_policy_sequence_mask(NOW, THEN[:, :1][:1, 0], np.zeros((2, 1)))

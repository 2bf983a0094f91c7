"""ORPO and CPO: the fine-tuning term is a mean over the tokens of the whole batch, however it is split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.preference import fine_tuned

POLICY, LENGTHS = jnp.array([[-3.0, -4.0], [-2.0, -9.0], [-6.0, -1.0]]), jnp.array([[3, 5], [1, 4], [8, 2]])


@pytest.mark.parametrize("loss", [fine_tuned.orpo, fine_tuned.cpo])
def test_the_fine_tuning_term_is_a_mean_over_tokens(loss):
    """Not a mean of means: -(3 + 2 + 6)/(3 + 1 + 8). A pair that does not count leaves both sums."""
    difference = loss(POLICY, LENGTHS, alpha=1.0) - loss(POLICY, LENGTHS, alpha=0.0)
    np.testing.assert_allclose(difference, 11 / 12, rtol=1e-6)
    where = jnp.array([[True, True], [True, True], [True, False]])
    difference = loss(POLICY, LENGTHS, alpha=1.0, where=where) - loss(POLICY, LENGTHS, alpha=0.0, where=where)
    np.testing.assert_allclose(difference, 5 / 4, rtol=1e-6)


def test_the_trainer_prepares_one_length_for_all_parts():
    built = rlx.build("orpo")
    constants, _ = built.prepare({"policy_logps": POLICY, "lengths": LENGTHS}, {}, {}, None)
    assert constants.shared == {"mean_length": 4.0} and built.splittable


def test_orpo_at_certainty_and_of_empty_responses_is_finite():
    """A response of probability 1 has infinite odds; the largest number below stands in."""
    certain = jnp.array([[0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])
    for lengths in (LENGTHS, jnp.zeros((3, 2), int)):
        value, slope = jax.value_and_grad(fine_tuned.orpo)(certain, lengths)
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_wrong_shapes_are_named():
    for loss in (fine_tuned.orpo, fine_tuned.cpo):
        with pytest.raises(errors.UserError, match=r"lengths has shape \(3, 4\), but policy_logps has shape \(3, 2\)"):
            loss(POLICY, jnp.ones((3, 4)))

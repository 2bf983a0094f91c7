"""D2O: the mean over ragged samples, lists that do not count, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import dispreference

POLICY, REFERENCE = jnp.array([[-1.0, -5.0, -2.0], [-3.0, -4.0, -9.0]]), jnp.full((2, 3), -2.0)


def test_the_mean_is_over_the_samples_that_are_there():
    where = jnp.array([[True, False, True], [True, True, True]])
    z = dispreference.dispreference_logit(POLICY.at[0, 1].set(jnp.nan), REFERENCE, alpha=1.0, beta=2.0, where=where)
    np.testing.assert_allclose(z, [2 * 1.0 - 0.0, 2 * -1.5 + 7.0])


def test_a_list_needs_its_negative_and_a_sample():
    where = jnp.array([[True, True, False], [False, False, True]])
    value, slope = jax.value_and_grad(lambda p: dispreference.d2o(p, REFERENCE, where=where))(POLICY)
    assert value == 0 and (slope == 0).all()


def test_one_candidate_compares_nothing():
    with pytest.raises(errors.UserError, match=r"policy_logps has shape \(2, 1\): d2o wants samples and a negative"):
        dispreference.d2o(POLICY[:, :1], REFERENCE[:, :1])

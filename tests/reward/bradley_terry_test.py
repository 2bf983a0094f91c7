"""The Bradley-Terry reward model: temperature and margin, masked margins, wrong settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import links
from rlx.reward import bradley_terry

REWARDS = jnp.array([[1.0, 0.5], [-2.0, 3.0], [0.0, 0.0]])


def test_the_margin_is_inside_of_the_temperature():
    margin = jnp.array([0.25, 0.0, 1.0])
    z = (np.array([0.5, -5.0, 0.0]) - margin) / 0.5
    found = bradley_terry.bradley_terry_rm(REWARDS, tau=0.5, margin=margin, epsilon=0.1, reduce=None)
    np.testing.assert_allclose(found, 0.9 * np.logaddexp(0, -z) + 0.1 * np.logaddexp(0, z), rtol=1e-6)


def test_the_margin_of_a_masked_pair_is_invisible():
    where = jnp.array([[True, True], [True, False], [True, True]])
    margin = jnp.array([0.25, jnp.nan, 1.0])
    loss = lambda r: bradley_terry.bradley_terry_rm(r, margin=margin, where=where)  # noqa: E731
    value, slope = jax.value_and_grad(loss)(REWARDS)
    assert np.isfinite(value) and np.isfinite(slope).all() and not slope[1].any()


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match="tau must be above 0, got -1"):
        bradley_terry.bradley_terry_rm(REWARDS, tau=-1)
    with pytest.raises(errors.UserError, match="epsilon is the rate of flipped labels"):
        bradley_terry.bradley_terry_rm(REWARDS, epsilon=0.7)
    with pytest.raises(errors.UserError, match=r"required has shape \(3, 2\), but margin has shape \(3,\)"):
        bradley_terry.bradley_terry_rm(REWARDS, margin=REWARDS)


def test_the_regression_variant_asks_for_a_margin():
    found = bradley_terry.bradley_terry_rm(REWARDS, tau=0.1, link=links.regression(10), reduce=None)
    np.testing.assert_allclose(found, (np.array([0.5, -5.0, 0.0]) / 0.1 - 10) ** 2 / 2, rtol=1e-5)


def test_a_list_without_its_preferred_response_does_not_count():
    where = jnp.array([[True, True], [False, True], [True, False]])
    found = bradley_terry.yojo_nway(REWARDS, where=where, reduce=None)
    np.testing.assert_allclose(found, [np.log1p(np.exp(-0.5)), 0, 0], rtol=1e-5)

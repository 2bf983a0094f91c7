"""POWER-DL: its fixed point, and the label table that its method keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, method
from rlx.preference import power

LOGPS, LENGTHS = jnp.array([[-3.0, -4.0], [-2.0, -9.0], [-5.0, -1.0]]), jnp.array([[3, 2], [1, 4], [2, 2]])
BATCH = {"policy_logps": LOGPS, "lengths": LENGTHS, "index": jnp.array([4, 0, 2])}
PROBABILITY = jax.nn.sigmoid(power.power_logit(LOGPS, LENGTHS))


def test_hard_labels_are_power():
    np.testing.assert_array_equal(power.power_dl(LOGPS, LENGTHS, jnp.ones(3)), power.power(LOGPS, LENGTHS))


def test_the_preference_gradient_vanishes_at_the_models_own_labels():
    slope = jax.grad(lambda p: power.power_dl(p, LENGTHS, PROBABILITY, eta=0.0))(LOGPS)
    np.testing.assert_allclose(slope, 0.0, atol=1e-7)
    tuning = jax.grad(lambda p: power.power_dl(p, LENGTHS, PROBABILITY, beta=2.0, eta=0.5))(LOGPS)
    np.testing.assert_allclose(tuning[:, 0], -1 / LENGTHS[:, 0] / 3, rtol=1e-4)


@pytest.mark.parametrize("update, used", [("after", jnp.ones(3)), ("before", 0.75 + 0.25 * PROBABILITY)])
def test_labels_are_read_and_updated_once(update, used):
    built = power.power_dl_method(gamma=0.25, update=update)
    params, state = built.init(jax.random.key(0), method.Shapes(num_examples=5))
    constants, new = built.prepare(BATCH, params, state, None)
    np.testing.assert_allclose(constants.units["label_table"], used, rtol=1e-6)
    expected = np.ones(5)
    expected[[4, 0, 2]] = 0.75 + 0.25 * PROBABILITY
    np.testing.assert_allclose(new["labels"], expected, rtol=1e-6)
    np.testing.assert_allclose(
        method.loss(built, BATCH, params, state), power.power_dl(LOGPS, LENGTHS, used), rtol=1e-6
    )


def test_padding_and_masked_rows_leave_the_table_alone():
    built = power.power_dl_method(gamma=0.5)
    _, state = built.init(jax.random.key(0), method.Shapes(num_examples=5))
    where = jnp.array([[True, True], [True, False], [True, True]])
    batch = BATCH | {"where": where, "index": jnp.array([4, 0, 5]), "policy_logps": LOGPS.at[1, 1].set(jnp.nan)}
    _, new = built.prepare(batch, {}, state, None)
    np.testing.assert_array_equal(np.flatnonzero(new["labels"] != 1), [4])
    assert np.isfinite(new["labels"]).all()


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match=r"gamma .* must be in \[0, 1\], got 2"):
        power.power_dl_method(gamma=2)
    with pytest.raises(errors.UserError, match="'after' or 'before' their use, got 'befor'. Did you mean 'before'"):
        power.power_dl_method(update="befor")
    with pytest.raises(errors.UserError, match="power_dl has no keyword 'label'"):
        rlx.build({"name": "power_dl", "label": 1.0})
    built = power.power_dl_method()
    with pytest.raises(errors.UserError, match="power_dl needs 'index', which the batch does not have"):
        built.prepare({"policy_logps": LOGPS, "lengths": LENGTHS}, {}, {}, None)

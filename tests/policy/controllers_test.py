"""Controllers: the pure update and the signal are the same, and what was not observed stays."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors, signals
from rlx.policy import controllers


def test_the_controller_is_the_signal():
    signal = signals.adaptive_kl(target=6.0, initial=0.2)
    state, coefficient = signal.init(), jnp.asarray(0.2)
    for kl in (1.0, 9.0, 6.5):
        after, state = signal.update(jnp.asarray(kl), state, 256)
        coefficient = controllers.adaptive_kl_controller(coefficient, jnp.asarray(kl), 256, target=6.0)
        assert coefficient == after


def test_coefficients_of_buckets():
    """Where the KL is above its target the coefficient grows, below it shrinks, and without observation it stays."""
    signal = controllers.ares_kl([1.0, 1.0, 1.0], [0.1, 0.1, 0.1], rate=1.0)
    coefficients, state = signal.update(jnp.array([0.6, 0.0, np.nan]), signal.init(), jnp.array([True, True, False]))
    np.testing.assert_allclose(coefficients, [1.5, 0.9, 1.0], rtol=1e-6)
    np.testing.assert_allclose(state.multipliers, [1.5, 0.9, 1.0], rtol=1e-6)
    again, _ = signal.update(jnp.array([0.1, 9.0, 0.1]), state)
    np.testing.assert_allclose(again, [2.25, 0.9 * 9.8, 1.0], rtol=1e-6)


def test_one_multiplier_for_each_coefficient():
    with pytest.raises(errors.UserError, match="multipliers has shape"):
        controllers.ares_dynamic_kl(jnp.ones(3), jnp.ones(2), jnp.ones(3))

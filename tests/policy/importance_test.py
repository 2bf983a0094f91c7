"""Weights and selections over the plane of ratios and advantages."""

import jax.numpy as jnp
import numpy as np

from rlx.policy import importance

RATIOS = [0.1, 0.5, 0.8, 1.0, 1.2, 2.0, 4.0]
RATIO, ADVANTAGE = (jnp.asarray(x.ravel(), jnp.float32) for x in np.meshgrid(RATIOS, [-2.0, 0.0, 3.0]))
R, A = np.asarray(RATIO), np.asarray(ADVANTAGE)


def test_one_side_keeps_what_ppo_trains_on() -> None:
    expected = (A >= 0) & (np.float32(1.2) >= R) | (A <= 0) & (np.float32(0.8) <= R)
    np.testing.assert_array_equal(importance.one_side()(RATIO, ADVANTAGE), expected)


def test_a_ring_adds_to_the_inside_what_is_far_on_the_side_that_pulls_back() -> None:
    inside = np.asarray(importance.two_side()(RATIO, ADVANTAGE))
    np.testing.assert_array_equal(inside, (np.float32(0.8) <= R) & (np.float32(1.2) >= R))
    added = (np.float32(0.4) >= R) & (A >= 0) | (R >= 3) & (A <= 0)
    np.testing.assert_array_equal(importance.ring()(RATIO, ADVANTAGE), inside | added)


def test_kept_is_the_weight_or_nothing() -> None:
    actual = importance.kept(importance.two_side(), importance.importance)(RATIO, ADVANTAGE)
    np.testing.assert_array_equal(actual, np.where(importance.two_side()(RATIO, ADVANTAGE), R, 0))


def test_the_gamma_shape_peaks_at_k_over_lambda() -> None:
    ratio = jnp.linspace(0.1, 5.0, 50)
    for sign, peak in ((1.0, 2 / 3), (-1.0, 3 / 2)):
        weight = importance.gamma_shaped()(ratio, jnp.full(50, sign))
        np.testing.assert_allclose(ratio[jnp.argmax(weight)], peak, atol=0.1)
        assert importance.gamma_shaped()(jnp.array([1e-8, 4e8]), jnp.full(2, sign)).max() < 1e-6


def test_exponential_weights_stay_finite() -> None:
    assert jnp.isfinite(importance.exponential(0.5)(RATIO, 1e4 * ADVANTAGE)).all()
    np.testing.assert_allclose(importance.exponential(2.0)(RATIO, ADVANTAGE), np.exp(A / 2), rtol=1e-6)

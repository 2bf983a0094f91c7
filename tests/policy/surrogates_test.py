"""Surrogates over the plane of ratios and advantages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import surrogates
from rlx.types import Surrogate

RATIOS = [0.01, 0.5, 0.79, 0.9, 1.0, 1.1, 1.29, 2.0, 5.0, 9.0]
RATIO, ADVANTAGE = (jnp.asarray(x.ravel(), jnp.float32) for x in np.meshgrid(RATIOS, [-2.0, 0.0, 3.0]))


def _slopes(surrogate: Surrogate) -> np.ndarray:
    """Derivative by the ratio at every point of the plane."""
    return np.asarray(jax.vmap(jax.grad(surrogate))(RATIO, ADVANTAGE))


def _gradient_stops(low: float, high: float) -> np.ndarray:
    """PPO stops where moving on would only improve what is clipped already."""
    change = np.asarray(RATIO) - 1
    return np.asarray((ADVANTAGE > 0) & (change > high) | (ADVANTAGE < 0) & (change < -low))


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (1.0, 1.0)])
def test_clip_gradient_sign_and_zero_regions(low: float, high: float) -> None:
    expected = np.where(_gradient_stops(low, high), 0, -ADVANTAGE)
    np.testing.assert_allclose(_slopes(surrogates.clip(low, high)), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        surrogates.is_clipped(RATIO, ADVANTAGE, low=low, high=high), _gradient_stops(low, high)
    )


def test_dual_clip_stops_exploding_ratios_of_bad_tokens() -> None:
    exploding = (ADVANTAGE < 0) & (RATIO > 3)
    expected = np.where(_gradient_stops(0.2, 0.2) | exploding, 0, -ADVANTAGE)
    surrogate = surrogates.clip(0.2, 0.2, dual=3.0)
    np.testing.assert_allclose(_slopes(surrogate), expected, rtol=1e-6)
    np.testing.assert_allclose(surrogate(RATIO, ADVANTAGE)[exploding], -3 * ADVANTAGE[exploding])
    actual = surrogates.is_dual_clipped(RATIO, ADVANTAGE, low=0.2, high=0.2, dual=3.0)
    np.testing.assert_array_equal(actual, exploding)


def test_cap_bounds_the_unclipped_branch() -> None:
    expected = np.where(_gradient_stops(0.2, 0.2) | ((ADVANTAGE < 0) & (RATIO > 4)), 0, -ADVANTAGE)
    np.testing.assert_allclose(_slopes(surrogates.clip(0.2, 0.2, cap=4.0)), expected, rtol=1e-6)


def test_inside_the_bounds_clip_is_the_policy_gradient() -> None:
    wide = surrogates.clip(10.0, 10.0)(RATIO, ADVANTAGE)
    np.testing.assert_array_equal(wide, surrogates.unclipped(RATIO, ADVANTAGE))


def test_dual_clip_must_exceed_one() -> None:
    with pytest.raises(errors.UserError, match="dual_clip .* above 1 .* got 1.0"):
        surrogates.clip(0.2, 0.2, dual=1.0)

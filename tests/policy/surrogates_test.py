"""Surrogates over the plane of ratios and advantages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import importance, surrogates
from rlx.types import Surrogate

RATIOS = [0.01, 0.5, 0.79, 0.9, 1.0, 1.1, 1.29, 2.0, 5.0, 9.0]
RATIO, ADVANTAGE = (jnp.asarray(x.ravel(), jnp.float32) for x in np.meshgrid(RATIOS, [-2.0, 0.0, 3.0]))


def _slopes(surrogate: Surrogate) -> np.ndarray:
    """Derivative by the ratio at every point of the plane."""
    return np.asarray(jax.vmap(jax.grad(surrogate))(RATIO, ADVANTAGE))


def _slopes_of_log(surrogate: Surrogate) -> np.ndarray:
    """Derivative by the log-probability at every point of the plane; the ratio moves with it."""
    return np.asarray(
        jax.vmap(jax.grad(lambda x, r, a: surrogate(r * jnp.exp(x), a, x)))(jnp.zeros_like(RATIO), RATIO, ADVANTAGE)
    )


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


@pytest.mark.parametrize(
    "surrogate",
    [
        surrogates.unclipped,
        surrogates.soft(),
        surrogates.reinforce(),
        surrogates.cispo(0.2, 0.28),
        surrogates.opmd(),
        surrogates.topr(),
        surrogates.red(),
        surrogates.vespo(),
    ],
)
def test_surrogates_without_clip_never_lose_a_gradient_nor_turn_it(surrogate: Surrogate) -> None:
    slopes = _slopes_of_log(surrogate)
    assert (np.sign(slopes) == -np.sign(ADVANTAGE)).all()


def test_where_the_rec_family_loses_its_gradient() -> None:
    change, better, worse = np.asarray(RATIO) - 1, np.asarray(ADVANTAGE) > 0, np.asarray(ADVANTAGE) < 0
    outside, moved = (np.abs(change) > 0.2), (better | worse)
    back = better & (change <= -0.6) | worse & (change >= 2)
    kept = {
        surrogates.rec_one_side: moved & ~_gradient_stops(0.2, 0.2),
        surrogates.rec_two_side: moved & ~outside,
        surrogates.rec_ring: moved & (~outside | back),
    }
    for make, expected in kept.items():
        for weight in (importance.uniform, importance.importance):
            np.testing.assert_array_equal(_slopes_of_log(make(weight=weight)) != 0, expected)


def test_the_weight_of_cispo_is_the_clipped_ratio() -> None:
    expected = -np.asarray(ADVANTAGE) * np.clip(RATIO, 0.8, 1.28)
    np.testing.assert_allclose(_slopes_of_log(surrogates.cispo(0.2, 0.28)), expected, rtol=1e-6)


def test_the_soft_gate_fades_on_both_sides_of_ratio_one() -> None:
    tau = np.where(np.asarray(ADVANTAGE) > 0, 1.0, 1.05)
    gate = 1 / (1 + np.exp(-tau * (np.asarray(RATIO) - 1)))
    np.testing.assert_allclose(_slopes(surrogates.soft()), -4 * gate * (1 - gate) * ADVANTAGE, rtol=1e-3)

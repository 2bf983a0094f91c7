"""Scores: constants stay constants, and empty or masked responses spoil nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.preference import scores


def test_the_reference_is_a_constant():
    assert jax.grad(lambda r: scores.log_ratio(jnp.float32(-1.0), r))(-2.0) == 0
    assert scores.log_ratio(jnp.bfloat16(-1.0), jnp.bfloat16(-2.0)).dtype == jnp.float32


def test_an_empty_response_divides_by_one_and_a_nan_length_stays_away_from_gradients():
    lengths = jnp.array([4.0, 0.0, jnp.nan])
    np.testing.assert_array_equal(scores.per_token(jnp.full(3, -4.0), lengths), [-1.0, -4.0, -4.0])
    slopes = jax.grad(lambda x: scores.per_token(x, lengths).sum())(jnp.full(3, -4.0))
    np.testing.assert_array_equal(slopes, [0.25, 1.0, 1.0])


def test_weighted_entropy_is_the_stationary_reward():
    """On three answers, pi maximises E[r] + beta H_w for r = beta w (log pi + 1): its slope is the same for all."""
    logits, lengths, beta = jnp.array([0.3, -1.0, 0.7]), jnp.array([1.0, 2.0, 5.0]), 0.7
    logp = jax.nn.log_softmax(logits)
    reward = beta * scores.weighted_entropy(logp, lengths)

    def objective(pi):
        return (pi * reward).sum() - beta * (pi * jnp.log(pi) / lengths).sum()

    slope = jax.grad(objective)(jnp.exp(logp))
    np.testing.assert_allclose(slope, jnp.full(3, slope[0]), atol=1e-6)


def test_alpha_power_keeps_its_digits_at_both_ends():
    """Small exponents against the series, large ones against the exponential; then the cap, finite without slope."""
    x = jnp.array([1e-6, -3.0])
    np.testing.assert_allclose(scores.alpha_power(x, 1e-3), [1e-6, np.expm1(3e-3) / -1e-3], rtol=1e-6)
    np.testing.assert_allclose(scores.alpha_power(x, 0.0), x)
    slopes = jax.vmap(jax.grad(lambda d: scores.alpha_power(d, 1.0)))(jnp.array([40.0, -40.0, -1e4]))
    np.testing.assert_allclose(slopes, [np.exp(-40.0), np.exp(40.0), 0.0], rtol=1e-5)
    assert np.isfinite(scores.alpha_power(jnp.float32(-1e4), 1.0))


def test_alpha_power_caps_float64_where_its_exponentials_end(float64):
    value = float64(lambda: scores.alpha_power(jnp.array([-700.0, -1e4]), 1.0))
    np.testing.assert_allclose(value, [1 - np.exp(700.0), 1 - np.exp(709.7827)], rtol=1e-12)


def test_log_odds_from_one_end_to_the_other():
    logs = jnp.array([-1e4, -20.0, -np.log(2.0), -1e-6, 0.0])
    odds, slopes = jax.vmap(jax.value_and_grad(scores.log_odds))(logs)
    np.testing.assert_allclose(odds[:4], [-1e4, -20.0, 0.0, np.log(1e6)], rtol=1e-5, atol=1e-6)
    assert odds[4] > 80 and np.isfinite(odds).all() and np.isfinite(slopes).all()


def test_a_small_alpha_lifts_no_capped_score_to_infinity(float64):
    def check():
        value, slope = jax.value_and_grad(scores.alpha_power)(jnp.asarray(-1e4), 0.1)
        assert np.isfinite(value) and slope == 0

    float64(check)

"""Links far from zero and at their kinks."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.preference import links


def test_logistic_keeps_its_digits_at_both_ends():
    np.testing.assert_allclose(links.logistic(jnp.array([-1e4, 40.0, 1e4])), [1e4, np.exp(-40.0), 0.0], rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.grad(links.logistic))(jnp.array([-1e4, 0.0, 1e4])), [-1.0, -0.5, 0.0])


def test_sigmoid_does_not_cancel():
    np.testing.assert_allclose(links.sigmoid(jnp.float32(40.0)), np.exp(-40.0), rtol=1e-5)


def test_hinge_has_no_slope_at_its_kink():
    np.testing.assert_array_equal(jax.vmap(jax.grad(links.hinge))(jnp.array([0.0, 1.0, 2.0])), [-1.0, 0.0, 0.0])


def test_squared_is_flat_at_its_target():
    assert jax.grad(links.squared(2.0))(2.0) == 0


def test_the_smooth_hinge_has_no_kink():
    """Where the parabola begins and where it becomes a line, value and slope are those of both sides."""
    link = links.smooth_hinge(5.0)
    np.testing.assert_array_equal(link(jnp.array([2.0, 1.0, -4.0, -9.0])), [0.0, 0.0, 2.5, 7.5])
    slopes = jax.vmap(jax.grad(link))(jnp.array([1.0, -1.5, -4.5, -1e30]))
    np.testing.assert_allclose(slopes, [0.0, -0.5, -1.0, -1.0])


def test_regression_is_half_of_squared():
    np.testing.assert_array_equal(2 * links.regression(3.0)(5.0), links.squared(3.0)(5.0))


def test_reverse_kl_is_bounded_and_finite_far_out():
    margins = jnp.array([-1e4, -50.0, 0.0, 50.0, 1e4])
    values, slopes = jax.vmap(jax.value_and_grad(links.reverse_kl(1e-3)))(margins)
    np.testing.assert_allclose(values[jnp.array([0, 4])], [-np.log(1e-3), -np.log1p(-1e-3)], rtol=1e-5)
    assert np.isfinite(slopes).all() and (values >= 0).all()


def test_modulated_has_both_ends_and_rises_in_between():
    """Logistic far left, exponential far right; around 0 it is not monotone."""
    link = links.modulated(0.05)
    np.testing.assert_allclose(link(jnp.array([-1e4, -3.0])), [1e4, links.logistic(-3.0)], rtol=1e-6)
    np.testing.assert_allclose(link(jnp.array([3.0, 1e4])), [np.exp(-3.0), 0.0], rtol=1e-6)
    assert np.isfinite(jax.vmap(jax.grad(link))(jnp.array([-1e4, 1e4]))).all()
    assert link(0.03) > link(-0.1)

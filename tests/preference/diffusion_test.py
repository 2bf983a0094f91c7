"""Denoising errors: precision, constant targets, the kink."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import diffusion

RNG = np.random.default_rng(0)


def test_errors_are_means_over_an_image_in_float32():
    prediction, noise = RNG.normal(size=(2, 3, 2, 3, 4, 4)).astype(np.float32)
    expected = np.square(prediction - noise).mean((-3, -2, -1))
    np.testing.assert_allclose(diffusion.denoising_error(prediction, noise), expected, rtol=1e-5)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (prediction, noise)]
    found = diffusion.denoising_error(*half)
    assert found.dtype == jnp.float32
    wide = np.square(np.subtract(*(np.asarray(x, np.float64) for x in half))).mean((-3, -2, -1))
    np.testing.assert_allclose(found, wide, rtol=1e-5)


def test_the_target_is_a_constant():
    x = jnp.ones((2, 2, 2))
    np.testing.assert_array_equal(jax.grad(lambda noise: diffusion.denoising_error(x, noise))(0 * x), 0)


def test_a_pair_that_keeps_the_margin_has_no_gradient_and_one_at_the_kink_half():
    policy, reference = jnp.array([[0.25, 1.0], [0.5, 0.5], [1.0, 0.5]]), jnp.full((3, 2), 0.5)
    slope = jax.grad(lambda p: diffusion.diffusion_dro(p, reference, margin=0.0) * 3)(policy)
    np.testing.assert_array_equal(slope, [[0, 0], [0.5, -0.5], [1, -1]])


def test_wrong_shapes_are_named():
    with pytest.raises(errors.UserError, match=r"noise has shape \(3, 4\), but prediction has shape \(3, 5\)"):
        diffusion.denoising_error(jnp.zeros((3, 5)), jnp.zeros((3, 4)))
    with pytest.raises(errors.UserError, match="policy_errors has shape .*: a pairwise loss wants"):
        diffusion.diffusion_dro(jnp.zeros(3), jnp.zeros(3))

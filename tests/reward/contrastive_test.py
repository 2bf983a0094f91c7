"""The contrastive term: negatives from the whole batch, masked ones from none of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.reward import contrastive

RNG = np.random.default_rng(0)
EMBEDDINGS, VIEWS = (jnp.asarray(RNG.normal(size=(3, 2, 4)), jnp.float32) for _ in range(2))


def test_scale_does_not_matter():
    found = contrastive.rm_contrastive(3 * EMBEDDINGS, VIEWS / 7, temperature=0.5)
    np.testing.assert_allclose(found, contrastive.rm_contrastive(EMBEDDINGS, VIEWS, temperature=0.5), rtol=1e-5)


def test_hot_is_uniform():
    found = contrastive.rm_contrastive(EMBEDDINGS, VIEWS, temperature=1e6, reduce=None)
    np.testing.assert_allclose(found, np.full((3, 2), np.log(6)), rtol=1e-5)


def test_a_masked_response_is_nobodys_negative():
    where = jnp.array([[True, True], [True, False], [True, True]])
    found = contrastive.rm_contrastive(EMBEDDINGS, VIEWS, where=where, reduce=None)
    kept = [x.reshape(6, 1, 4)[jnp.array([0, 1, 2, 4, 5])] for x in (EMBEDDINGS, VIEWS)]
    np.testing.assert_allclose(found[where], contrastive.rm_contrastive(*kept, reduce=None)[:, 0], rtol=1e-4)


def test_embeddings_of_zero_have_a_finite_slope():
    slope = jax.grad(contrastive.rm_contrastive)(jnp.zeros_like(EMBEDDINGS), VIEWS)
    assert np.isfinite(slope).all()


def test_it_refuses_to_be_split_and_names_wrong_settings():
    assert not rlx.build("rm_contrastive").splittable
    with pytest.raises(errors.UserError, match="temperature must be above 0"):
        contrastive.rm_contrastive(EMBEDDINGS, VIEWS, temperature=0)
    with pytest.raises(errors.UserError, match="views has shape"):
        contrastive.rm_contrastive(EMBEDDINGS, VIEWS[:2])

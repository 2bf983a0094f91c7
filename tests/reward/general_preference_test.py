"""The general preference model: antisymmetry, cycles, and the head that its method owns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, method
from rlx.preference import links
from rlx.reward import general_preference

EMBEDDINGS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4)), jnp.float32)


def test_the_score_is_antisymmetric():
    score = general_preference.preference_score(EMBEDDINGS)
    np.testing.assert_allclose(general_preference.preference_score(EMBEDDINGS[:, ::-1]), -score, rtol=1e-5)
    np.testing.assert_array_equal(general_preference.preference_score(EMBEDDINGS[:, [0, 0]]), 0)


def test_it_represents_a_cycle():
    """Rock, paper and scissors at 120 degrees: each beats the next."""
    angles = 2 * np.pi * np.arange(3) / 3
    items = np.stack([np.cos(angles), np.sin(angles)], -1)
    pairs = jnp.asarray(np.stack([items, np.roll(items, -1, 0)], 1))
    assert (general_preference.preference_score(pairs) > 0.5).all()


def test_normalised_embeddings_have_bounded_scores():
    score = general_preference.preference_score(100 * EMBEDDINGS, normalize=True)
    assert (jnp.abs(score) <= 1).all()
    np.testing.assert_allclose(score, general_preference.preference_score(EMBEDDINGS, normalize=True), rtol=1e-4)
    assert rlx.build({"name": "gpm", "normalize": True}).hyperparameters["normalize"]


def test_prompts_weigh_the_blocks():
    both = general_preference.preference_score(EMBEDDINGS, block_weights=jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(both, 2 * general_preference.preference_score(EMBEDDINGS[..., :2]), rtol=1e-5)


def test_the_regression_variant_asks_for_a_score():
    found = general_preference.gpm(EMBEDDINGS, tau=1.0, link=links.regression(10), reduce=None)
    score = general_preference.preference_score(EMBEDDINGS)
    np.testing.assert_allclose(found, jnp.square(score - 10) / 2, rtol=1e-5)


def test_the_method_owns_a_small_head():
    built = rlx.build({"name": "gpm", "dimension": 6, "tau": 0.5})
    params, state = built.init(jax.random.key(0), method.Shapes(hidden_size=64))
    assert params["head"].shape == (64, 6) and state == {} and built.needs == ("hidden",)
    np.testing.assert_allclose(params["head"].std(), 1 / 65, rtol=0.2)


def test_masked_hidden_states_reach_neither_the_loss_nor_the_head():
    built = rlx.build({"name": "gpm", "dimension": 2})
    params, state = built.init(jax.random.key(0), method.Shapes(hidden_size=4))
    batch = {"hidden": EMBEDDINGS.at[1].set(jnp.nan), "where": jnp.array([[True] * 2, [False] * 2, [True] * 2])}
    loss = jax.value_and_grad(lambda p, b: method.loss(built, b, p, state))
    value, slope = loss(params, batch)
    kept, kept_slope = loss(params, {"hidden": EMBEDDINGS[jnp.array([0, 2])]})
    np.testing.assert_allclose(value, kept, rtol=1e-6)
    np.testing.assert_allclose(slope["head"], kept_slope["head"], rtol=1e-5, atol=1e-7)


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match="dimension must be even and above 0 .*, got 3"):
        general_preference.gpm_method(dimension=3)
    with pytest.raises(errors.UserError, match="gpm needs the hidden size of the model, got 0"):
        general_preference.gpm_method().init(jax.random.key(0), method.Shapes())
    with pytest.raises(errors.UserError, match=r"embeddings has shape \(3, 2, 3\): gpm wants \[..., 2, even\]"):
        general_preference.gpm(EMBEDDINGS[..., :3])
    with pytest.raises(errors.UserError, match="tau must be above 0"):
        general_preference.gpm(EMBEDDINGS, tau=0)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_of_a_pair_is_minus_the_log_of_its_probability(normalize):
    keys = jax.random.split(jax.random.key(3), 2)
    embeddings, weights = jax.random.normal(keys[0], (5, 3, 4)), jax.nn.softmax(jax.random.normal(keys[1], (5, 2)))
    options = {"tau": 0.7, "block_weights": weights, "normalize": normalize}
    found = general_preference.preference_probabilities(embeddings, **options)
    assert found.shape == (5, 3, 3)
    np.testing.assert_allclose(found + found.mT, 1, atol=1e-6)
    for i in range(3):
        for j in range(3):
            loss = general_preference.gpm(embeddings[:, [i, j]], **options, reduce=None)
            np.testing.assert_allclose(-np.log(found[:, i, j]), loss, rtol=2e-5, atol=1e-6)

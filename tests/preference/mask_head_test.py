"""The learned masks: by hand, over layers, trained apart for rewards and KLs; errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, method
from rlx.preference import mask_head

RNG = np.random.default_rng(0)
WHERE = np.arange(4) < RNG.integers(1, 5, (3, 2, 1))
BATCH = {
    "policy_logits": jnp.asarray(RNG.normal(size=(3, 2, 4, 5)), jnp.float32),
    "reference_logits": jnp.asarray(RNG.normal(size=(3, 2, 4, 5)), jnp.float32),
    "tokens": jnp.asarray(RNG.integers(0, 5, (3, 2, 4))),
    "reference_states": jnp.asarray(RNG.normal(size=(3, 2, 4, 6)), jnp.float32),
    "where": jnp.asarray(WHERE),
}
SHAPES = method.Shapes(hidden_size=6)


def build(**keywords):
    built = rlx.build({"name": "sparsepo", **keywords})
    return built, built.init(jax.random.key(0), SHAPES)[0]


def test_layers_by_hand():
    states, weight = RNG.normal(size=(4, 2, 6)), RNG.normal(size=(2, 6))
    bias, mixing = np.array([0.1, -0.2]), np.array([0.7, 0.4])
    head = mask_head.MaskHead(jnp.ones(6), jnp.zeros(6), *map(jnp.asarray, (weight, bias, mixing)))
    normal = (states - states.mean(-1, keepdims=True)) / np.sqrt(states.var(-1, keepdims=True) + 1e-5)
    layers = np.maximum((normal * weight).sum(-1) + bias, 0)
    np.testing.assert_allclose(mask_head.learned_mask(head, states), np.maximum(layers @ mixing, 0), atol=1e-5)


def test_a_mask_of_one_everywhere_is_tdpo1():
    built, params = build()
    params["reward"] |= {"weight": jnp.zeros((1, 6)), "bias": jnp.ones(1)}
    arrays = [BATCH[name] for name in ("policy_logits", "reference_logits", "tokens")]
    np.testing.assert_allclose(method.loss(built, BATCH, params), rlx.tdpo1(*arrays, where=WHERE), rtol=1e-5)


@pytest.mark.parametrize("independent", [False, True])
def test_the_heads_learn(independent):
    built, params = build(independent=independent, l1_reward=0.01, l1_kl=0.02)
    assert sorted(params) == (["kl", "reward"] if independent else ["reward"])
    slope = jax.grad(lambda p: method.loss(built, BATCH, p))(params)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))


def test_masked_states_do_not_reach_the_head():
    built, params = build()
    states = jnp.where(WHERE[..., None], BATCH["reference_states"], jnp.nan)
    slopes = [
        jax.grad(lambda p, b=b: method.loss(built, b, p))(params) for b in (BATCH, BATCH | {"reference_states": states})
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *slopes)


def test_several_layers():
    built, params = build(layers=3)
    states = jnp.stack([BATCH["reference_states"]] * 3, -2)
    assert params["reward"]["weight"].shape == (3, 6)
    assert np.isfinite(method.loss(built, BATCH | {"reference_states": states}, params))


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match="layers counts the layers whose states make a mask .* got 0"):
        mask_head.sparsepo_method(layers=0)
    with pytest.raises(errors.UserError, match="sparsepo needs the hidden size of the model, got 0"):
        mask_head.sparsepo_method().init(jax.random.key(0), method.Shapes())

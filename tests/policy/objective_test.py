"""One loss, many configurations: what published losses are to each other, and the terms they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import aggregate, errors
from rlx.policy import importance, ratios, regularize, surrogates
from rlx.policy.objective import policy_loss

RNG = np.random.default_rng(0)
SHAPE = (3, 2, 4)
LOGPROBS, OLD, REFERENCE, NOISE = (jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for _ in range(4))
ADVANTAGES = jnp.asarray(RNG.normal(size=(3, 2, 1)), jnp.float32)
WHERE = jnp.asarray(RNG.random(SHAPE) < 0.7).at[0, 0].set(False)
REDUCE = {"where": WHERE, "reduce": aggregate.token_mean}


def gradient(loss, old, advantages=ADVANTAGES, **options):
    return jax.grad(lambda x: loss(x, old, advantages, **REDUCE, **options))(LOGPROBS)


@pytest.mark.parametrize("loss", [rlx.ppo_clip_loss, rlx.sapo_loss, rlx.cispo_loss, rlx.gspo_loss, rlx.gmpo_loss])
def test_at_ratio_one_the_gradient_is_that_of_reinforce(loss):
    expected = jax.grad(lambda x: rlx.reinforce_loss(x, ADVANTAGES, **REDUCE))(LOGPROBS)
    np.testing.assert_allclose(gradient(loss, LOGPROBS), expected, rtol=1e-4, atol=1e-7)


def test_cispo_without_bounds_has_the_gradient_of_the_unclipped_policy_gradient():
    def unclipped(*arrays, **options):
        return policy_loss(*arrays, surrogate=surrogates.unclipped, **options)

    actual = gradient(rlx.cispo_loss, OLD, clip_low=1.0, clip_high=1e9)
    np.testing.assert_allclose(actual, gradient(unclipped, OLD), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bounds", [{}, {"clip_low": 0.1, "clip_high": 0.6}])
def test_rec_one_side_with_importance_weights_has_the_gradient_of_ppo(bounds):
    actual = gradient(rlx.rec_one_side_loss, OLD, weight=importance.importance, **bounds)
    np.testing.assert_allclose(actual, gradient(rlx.ppo_clip_loss, OLD, **bounds), rtol=1e-4, atol=1e-7)


def test_gmpo_with_one_token_is_ppo_clipped_in_log_space():
    arrays = [x.reshape(-1, 1) for x in (LOGPROBS, OLD, NOISE)]
    bounds = {"clip_low": 1 - np.exp(-0.4), "clip_high": np.exp(0.3) - 1}
    expected = jax.value_and_grad(lambda *x: rlx.ppo_clip_loss(*x, **bounds))(*arrays)
    actual = jax.value_and_grad(lambda *x: rlx.gmpo_loss(*x, clip_low=0.4, clip_high=0.3))(*arrays)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_opmd_is_reinforce_scaled_and_red_without_weight_is_reinforce_with_a_pull():
    reinforce = rlx.reinforce_loss(LOGPROBS, ADVANTAGES, **REDUCE)
    np.testing.assert_allclose(rlx.opmd_loss(LOGPROBS, ADVANTAGES, tau=3.0, **REDUCE), reinforce / 4, rtol=1e-5)
    actual = rlx.red_weight_loss(LOGPROBS, OLD, ADVANTAGES, weight=importance.uniform, k2=0.5, **REDUCE)
    pull = aggregate.token_mean(0.5 * jnp.square(LOGPROBS - OLD), WHERE)
    np.testing.assert_allclose(actual, reinforce + pull, rtol=1e-5)


def test_topr_of_good_responses_is_reinforce_and_bad_ones_fade():
    good, bad = jnp.abs(ADVANTAGES) + 0.1, -jnp.abs(ADVANTAGES) - 0.1
    reinforce = rlx.reinforce_loss(LOGPROBS, good, **REDUCE)
    np.testing.assert_allclose(rlx.topr_loss(LOGPROBS, OLD, good, **REDUCE), reinforce, rtol=1e-5)
    np.testing.assert_allclose(rlx.topr_loss(LOGPROBS, LOGPROBS + 90, bad, **REDUCE), 0, atol=1e-15)


def test_without_an_old_policy_the_ratio_is_one_with_a_gradient():
    actual = jax.value_and_grad(lambda x: policy_loss(x, None, ADVANTAGES, **REDUCE))(LOGPROBS)
    expected = jax.value_and_grad(lambda x: policy_loss(x, LOGPROBS, ADVANTAGES, **REDUCE))(LOGPROBS)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_kl_entropy_and_selection_are_terms_of_the_sum():
    options = {"where": WHERE, "reduce": None}
    keep = NOISE > 0
    plain = policy_loss(LOGPROBS, OLD, ADVANTAGES, **options)
    actual = policy_loss(
        LOGPROBS,
        OLD,
        ADVANTAGES,
        None,
        REFERENCE,
        NOISE,
        keep=keep,
        beta=0.3,
        correct_kl=True,
        entropy_coefficient=0.2,
        **options,
    )
    kl = regularize.kl_penalty(LOGPROBS, REFERENCE, where=WHERE) * ratios.token(LOGPROBS, OLD, where=WHERE)
    expected = jnp.where(keep, plain, 0) + jnp.where(WHERE, 0.3 * kl - 0.2 * NOISE, 0)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("keyword", ["beta", "entropy_coefficient"])
def test_a_missing_array_is_named(keyword):
    name = {"beta": "reference_logprobs", "entropy_coefficient": "entropy"}[keyword]
    with pytest.raises(errors.UserError, match=f"{keyword} is not 0, so the loss needs {name}"):
        policy_loss(LOGPROBS, OLD, ADVANTAGES, **{keyword: 0.1})


def test_an_estimator_that_is_wrong_as_a_loss_is_refused():
    with pytest.raises(errors.UserError, match="'k1' cannot be used as a loss"):
        rlx.ppo_clip_loss(LOGPROBS, OLD, ADVANTAGES, None, REFERENCE, beta=0.1, estimator="k1")


def test_a_method_needs_the_reference_once_beta_is_on():
    assert "reference_logprobs" in rlx.build("trl_grpo_loss").optional
    built = rlx.build({"name": "trl_grpo_loss", "beta": 0.04})
    assert "reference_logprobs" in built.needs and "reference_logprobs" not in built.optional


def test_presets_carry_their_reduction_and_a_config_overrides_it():
    arrays = (LOGPROBS, OLD, ADVANTAGES)
    for name, reduce in (
        ("trl_grpo_loss", aggregate.sequence_mean_with_empty),
        ("trl_luspo_loss", aggregate.sequence_sum_with_empty),
    ):
        assert rlx.build(name).aggregate == reduce
        assert rlx.build({"name": name, "aggregate": "token_mean"}).aggregate == aggregate.token_mean
    unreduced = rlx.trl_grpo_loss(*arrays, where=WHERE, reduce=None)
    np.testing.assert_allclose(
        rlx.trl_grpo_loss(*arrays, where=WHERE), aggregate.sequence_mean_with_empty(unreduced, WHERE), rtol=1e-6
    )

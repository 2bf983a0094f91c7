"""Fine-tuning and unpaired losses: sft by its derivation, KTO's reference point and its coupling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import aggregate, errors, method
from rlx.preference import pointwise

KTO = {
    "policy_logps": jnp.array([[-3.0], [-4.0], [-2.0], [-9.0]]),
    "reference_logps": jnp.array([[-3.5], [-3.0], [-2.0], [-7.0]]),
    "labels": jnp.array([[1.0], [0.0], [1.0], [0.0]]),
    "policy_kl_logps": jnp.array([[-5.0], [-9.0], [-4.0], [-6.0]]),
    "reference_kl_logps": jnp.array([[-8.0], [-8.0], [-7.0], [-7.0]]),
}


def test_sft_is_the_cross_entropy_of_the_tokens(float64):
    """In the logits its gradient is (softmax - one-hot) / tokens, and 0 at masked tokens: no vector file has it."""

    def check():
        rng = np.random.default_rng(0)
        logits, tokens = rng.normal(size=(2, 4, 6)), rng.integers(0, 6, (2, 4))
        where = np.array([[True, True, False, False], [True, True, True, False]])

        def loss(logits):
            logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]
            return pointwise.sft(logprobs, where=where)

        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        chosen = np.take_along_axis(p, tokens[..., None], -1)[..., 0]
        value, slope = jax.value_and_grad(loss)(jnp.asarray(logits))
        np.testing.assert_allclose(value, -np.log(chosen)[where].mean(), rtol=1e-12)
        expected = (p - np.eye(6)[tokens]) * where[..., None] / where.sum()
        np.testing.assert_allclose(slope, expected, rtol=1e-12, atol=1e-15)

    float64(check)


def test_sft_takes_any_aggregation():
    logprobs, where = jnp.array([[-1.0, -3.0], [-5.0, 0.0]]), jnp.array([[True, True], [True, False]])
    assert pointwise.sft(logprobs, where=where) == 3
    assert pointwise.sft(logprobs, where=where, reduce=aggregate.sequence_mean) == 3.5
    assert rlx.build({"name": "sft", "aggregate": "sequence_sum"}).aggregate(-logprobs, where) == 4.5


def test_the_reference_point_is_clamped_after_the_mean():
    """Log-ratios 3, -1, 3, 1: the mean is 1.5; clamping each first would give 1.75. Masked ones leave the mean."""
    policy, reference = KTO["policy_kl_logps"], KTO["reference_kl_logps"]
    assert pointwise.kto_reference_point(policy, reference) == 1.5
    assert pointwise.kto_reference_point(reference, policy) == 0
    where = jnp.array([[True], [False], [True], [False]])
    assert pointwise.kto_reference_point(policy.at[1].set(jnp.nan), reference, where=where) == 3


def test_kto_by_hand():
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    losses = pointwise.kto(**KTO, beta=0.5, lambda_desirable=1.2, lambda_undesirable=0.8, reduce=None)
    d = np.array([0.5, -1.0, 0.0, -2.0])
    expected = np.where([True, False, True, False], 1.2 * sigmoid(0.5 * (1.5 - d)), 0.8 * sigmoid(0.5 * (d - 1.5)))
    np.testing.assert_allclose(losses[:, 0], expected, rtol=1e-6)


def test_the_reference_point_has_no_gradient():
    slope = jax.grad(lambda kl: pointwise.kto(**(KTO | {"policy_kl_logps": kl})))(KTO["policy_kl_logps"])
    np.testing.assert_array_equal(slope, 0)


def test_kto_prepares_one_reference_point_for_all_parts():
    built = rlx.build({"name": "kto", "beta": 0.5})
    constants, _ = built.prepare(KTO | {"where": None}, {}, {}, None)
    assert constants.shared["reference_point"] == 1.5 and not constants.units and built.coupling == "batch"
    np.testing.assert_allclose(method.loss(built, KTO), pointwise.kto(**KTO, beta=0.5), rtol=1e-6)


def test_kto_without_anything_to_refer_to():
    arrays = {name: KTO[name] for name in ("policy_logps", "reference_logps", "labels")}
    with pytest.raises(errors.UserError, match="kto needs policy_kl_logps and reference_kl_logps, or a reference_p"):
        pointwise.kto(**arrays)
    given = pointwise.kto(**arrays, reference_point=0.0)
    np.testing.assert_array_equal(given, pointwise.apo_zero_unpaired(**arrays))
    with pytest.raises(errors.UserError, match=r"labels has shape \(4,\)"):
        pointwise.kto(**(KTO | {"labels": jnp.ones(4)}))


def test_poft_weighs_down_what_aligned_models_find_unlikely():
    """The gradient of fine-tuning times sigma of minus the lead over the aligned models."""
    policy, lengths, aligned = jnp.array([[-4.0], [-4.0]]), jnp.array([[2], [2]]), jnp.array([[[-1.0]], [[-9.0]]])
    slope = jax.grad(lambda p: pointwise.poft(p, lengths, aligned))(policy)
    np.testing.assert_allclose(slope[:, 0], -0.25 / (1 + np.exp([-1.0, 7.0])), rtol=1e-6)
    with pytest.raises(errors.UserError, match=r"policy_logps has shape \(2, 1\), but ensemble_logps without their"):
        pointwise.poft(policy, lengths, aligned[:, 0])

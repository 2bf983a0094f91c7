"""DisCO and its kin by their special cases: what tau, lambda and the hinge come to at their ends; Reg-GRPO's guard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.policy import discriminative

RNG = np.random.default_rng(0)
NOW, OLD = -np.abs(RNG.normal(1, 0.5, (2, 3, 4, 5))).astype(np.float32)
CORRECT = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], np.float32)
WHERE = np.arange(5) < RNG.integers(1, 6, (3, 4))[..., None]


def of(name, now=NOW, **options):
    return getattr(rlx, name)(jnp.asarray(now), OLD, CORRECT, where=WHERE, **options)


def test_a_large_tau_is_the_mean():
    np.testing.assert_allclose(of("disco_logl_loss", tau=1e4), of("discob_logl_loss"), rtol=1e-4)


def test_a_small_tau_is_the_hardest_wrong_response():
    scores = discriminative.log_likelihood(NOW, OLD, WHERE)
    hardest = jnp.where(CORRECT > 0, -jnp.inf, scores).max(-1)[:2]
    better = jnp.where(CORRECT > 0, scores, 0).sum(-1)[:2] / 2
    expected = -(better - hardest).sum() / 3  # the third prompt has no wrong response, and counts
    np.testing.assert_allclose(of("disco_logl_loss", tau=1e-3, beta=0.0), expected, atol=1e-2)


def test_a_large_lambda_is_disco():
    np.testing.assert_allclose(of("drpo_loss", lam=1e6), of("disco_logl_loss"), rtol=1e-5)
    assert of("drpo_loss") != of("disco_logl_loss")


def test_the_longest_response_scales_lambda():
    np.testing.assert_allclose(of("drpo_loss", lam=0.1, max_length=10.0), of("drpo_loss", lam=0.2), rtol=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_price_has_the_gradient_of_the_squared_hinge(estimator):
    options = {"beta": 3.0, "delta": -1.0, "estimator": estimator}

    def hinge(now):
        divergence = discriminative.divergence(now, OLD, estimator, WHERE)
        return 1.5 * jnp.maximum(divergence.sum() / WHERE.sum() + 1.0, 0) ** 2

    priced = jax.grad(lambda now: of("disco_logl_loss", now, **options) - of("disco_logl_loss", now, beta=0.0))
    np.testing.assert_allclose(priced(jnp.asarray(NOW)), jax.grad(hinge)(jnp.asarray(NOW)), rtol=1e-4, atol=1e-6)


def test_within_the_bound_nothing_is_paid():
    assert discriminative.disco_price(OLD, OLD) == 0
    np.testing.assert_allclose(of("disco_logl_loss", OLD), of("disco_logl_loss", OLD, beta=0.0))


def test_an_absent_response_is_no_wrong_one():
    """One of the two wrong responses of a prompt without tokens: the other is the mean of the wrong ones."""
    where = np.ones((1, 3, 2), bool)
    where[0, 2] = False
    arrays = NOW[:1, :3, :2], NOW[:1, :3, :2], np.array([[1, 0, 0]])
    found = rlx.discob_logl_loss(*arrays, where=where)
    np.testing.assert_allclose(found, -(NOW[0, 0, :2].mean() - NOW[0, 1, :2].mean()), rtol=1e-5)


def test_reg_grpo_regresses_whatever_the_scale():
    """The standardised log-ratio does not see a common factor, so neither does the loss."""
    rewards = RNG.normal(size=(3, 4))
    first, second = (rlx.reg_grpo_loss(OLD + factor * (NOW - OLD), OLD, rewards) for factor in (1.0, 3.0))
    np.testing.assert_allclose(first, second, rtol=1e-4)


def test_reg_grpo_on_the_old_policy_goes_the_way_of_the_advantage():
    rewards = np.array([[1.0, 0.0, 0.0, 2.0]], np.float32)
    loss, grad = jax.value_and_grad(rlx.reg_grpo_loss)(jnp.asarray(OLD[:1]), OLD[:1], rewards)
    np.testing.assert_allclose(loss, 1, rtol=1e-5)
    ahead = -grad[0, :, 0]
    np.testing.assert_allclose(ahead / ahead[3], (rewards[0] - rewards.mean()) / (2 - rewards.mean()), rtol=1e-4)


def test_errors():
    with pytest.raises(errors.UserError, match="Unknown score 'likelihod_ratio'. Did you mean 'likelihood_ratio'"):
        of("disco_logl_loss", score="likelihod_ratio")
    with pytest.raises(errors.UserError, match="must be 'k1' or 'k3', got 'k2'"):
        of("disco_logl_loss", estimator="k2")
    with pytest.raises(errors.UserError, match="tau must be above 0, got 0"):
        of("disco_logl_loss", tau=0.0)
    with pytest.raises(errors.UserError, match="lam must be above 0, got -1"):
        of("drpo_loss", lam=-1.0)
    with pytest.raises(errors.UserError, match=r"logprobs without their last axis has shape \(3, 4\), but correct has"):
        rlx.disco_logl_loss(NOW, OLD, CORRECT[:, :3])
    with pytest.raises(errors.UserError, match="logprobs without their last axis"):
        rlx.reg_grpo_loss(NOW, OLD, CORRECT[:, :3])

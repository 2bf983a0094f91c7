"""KL estimators: exact expectations over a small vocabulary, by declared use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import regularize

LOGITS = jnp.array([0.3, -0.5, 1.1, 0.0, -1.2])
REFERENCE = jax.nn.log_softmax(jnp.array([0.1, 0.6, 0.2, -0.9, 0.4]))


def log_policy(logits: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(logits)


def reverse_kl(logits: jax.Array) -> jax.Array:
    lp = log_policy(logits)
    return jnp.sum(jnp.exp(lp) * (lp - REFERENCE))


def forward_kl(logits: jax.Array) -> jax.Array:
    return jnp.sum(jnp.exp(REFERENCE) * (REFERENCE - log_policy(logits)))


def total_variation(logits: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(jnp.exp(log_policy(logits)) - jnp.exp(REFERENCE)))


TARGETS = {
    "KL(policy || reference)": reverse_kl,
    "KL(reference || policy)": forward_kl,
    "total variation sum |policy - reference|": total_variation,
}


def declared(use: str) -> list:
    """Estimators that declare the use as something exact."""
    named = [(name, e.uses.get(use)) for name, e in regularize.ESTIMATORS.items()]
    return [(name, target) for name, target in named if target in TARGETS]


def expected_gradient(name: str) -> jax.Array:
    """Mean over the policy of the estimate's gradient, tokens held fixed: what a training step follows."""
    weights = jnp.exp(log_policy(LOGITS))

    def loss(logits: jax.Array) -> jax.Array:
        estimate = regularize.ESTIMATORS[name].estimate(log_policy(logits) - REFERENCE)
        return jnp.sum(weights * estimate)

    return jax.grad(loss)(LOGITS)


@pytest.mark.parametrize(("name", "target"), declared("value"))
def test_declared_value(name: str, target: str) -> None:
    per_token = regularize.kl_penalty(log_policy(LOGITS), REFERENCE, estimator=name, use="value")
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_policy(LOGITS)) * per_token), TARGETS[target](LOGITS), rtol=1e-5)


@pytest.mark.parametrize(("name", "target"), declared("loss"))
def test_declared_loss_gradient(name: str, target: str) -> None:
    np.testing.assert_allclose(expected_gradient(name), jax.grad(TARGETS[target])(LOGITS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "target"), declared("reward"))
def test_declared_reward_gradient(name: str, target: str) -> None:
    """REINFORCE on the penalty as a negative reward."""
    penalty = regularize.kl_penalty(log_policy(LOGITS), REFERENCE, estimator=name, use="reward")
    weights = jnp.exp(log_policy(LOGITS))
    gradient = jax.grad(lambda logits: jnp.sum(weights * penalty * log_policy(logits)))(LOGITS)
    np.testing.assert_allclose(gradient, jax.grad(TARGETS[target])(LOGITS), rtol=1e-4, atol=1e-6)


def test_every_use_has_an_exact_estimator() -> None:
    assert [len(declared(use)) for use in regularize.USES] == [4, 2, 5]


def test_k1_as_a_loss_pulls_nowhere_and_is_refused() -> None:
    np.testing.assert_allclose(expected_gradient("k1"), np.zeros(5), atol=1e-6)
    with pytest.raises(errors.UserError, match=r"'k1' cannot be used as a loss: .* mean is 0.* 'k2' or 'k1\+' .* 'k3'"):
        regularize.kl_penalty(LOGITS, REFERENCE, estimator="k1")


@pytest.mark.parametrize("name", ["k2", "k3", "k3+", "abs"])
def test_wrong_rewards_are_refused(name: str) -> None:
    with pytest.raises(errors.UserError, match="cannot be used as a reward: .* use 'k1'"):
        regularize.kl_in_reward(LOGITS, LOGITS, REFERENCE, estimator=name)


def test_unknown_names_have_close_matches() -> None:
    with pytest.raises(errors.UserError, match="Unknown KL estimator 'low_var'.* 'low_var_kl'"):
        regularize.by_name("low_var")
    with pytest.raises(errors.UserError, match="Unknown use 'rewards'.* 'reward'"):
        regularize.kl_penalty(LOGITS, REFERENCE, estimator="k2", use="rewards")
    with pytest.raises(errors.UserError, match="reference_logprobs has shape"):
        regularize.kl_penalty(LOGITS, REFERENCE[:-1])


def test_reward_and_value_are_constants() -> None:
    for use in ("reward", "value"):
        gradient = jax.grad(lambda x, u=use: regularize.kl_penalty(x, REFERENCE, estimator="k1+", use=u).sum())(LOGITS)
        np.testing.assert_array_equal(gradient, np.zeros(5))


@pytest.mark.parametrize("name", ["k1+", "k3+"])
def test_plus_has_the_value_of_its_estimator_and_the_gradient_of_k2(name: str) -> None:
    d = jnp.array([-1e4, -2.0, 0.0, 1.5, 1e4])
    values, slopes = jax.vmap(jax.value_and_grad(regularize.ESTIMATORS[name].estimate))(d)
    np.testing.assert_array_equal(values, regularize.ESTIMATORS[name[:-1]].estimate(d))
    np.testing.assert_array_equal(slopes, d)


def test_abs_has_slope_zero_at_zero() -> None:
    slopes = jax.vmap(jax.grad(regularize.absolute.estimate))(jnp.array([-2.0, 0.0, 3.0]))
    np.testing.assert_array_equal(slopes, [-1, 0, 1])


def test_k3_clamps_value_and_gradient() -> None:
    d = jnp.array([-1e4, -3.0, -1.0, 1e4])
    values, slopes = jax.vmap(jax.value_and_grad(regularize.k3.estimate))(d)
    np.testing.assert_allclose(values, [10, 10, np.e - 2, 10], rtol=1e-6)
    np.testing.assert_allclose(slopes, [0, 0, 1 - np.e, 0], rtol=1e-6)
    unclamped = regularize.low_variance(np.inf, np.inf).estimate
    np.testing.assert_allclose(unclamped(jnp.float32(-3.0)), np.exp(3) - 4, rtol=1e-6)


def test_masked_tokens_are_not_seen() -> None:
    where = jnp.array([True, False])
    arrays = jnp.array([-1.0, jnp.nan]), jnp.array([-2.0, jnp.inf])
    value, gradient = jax.value_and_grad(lambda x: regularize.kl_penalty(x, arrays[1], where=where).sum())(arrays[0])
    assert jnp.isfinite(value) and gradient[1] == 0
    rewarded = regularize.kl_in_reward(jnp.array([1.0, jnp.nan]), *arrays, beta=0.5, where=where)
    np.testing.assert_array_equal(rewarded, [0.5, 0])

"""PPO and GSPO: identities, weights, reductions, masks and saturation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import aggregate, errors
from rlx.policy import clipped
from rlx.types import Loss

RNG = np.random.default_rng(0)
SHAPE = (3, 2, 4)
LOGPROBS, OLD, ADVANTAGES, WEIGHTS = (jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for _ in range(4))
WHERE = jnp.asarray(RNG.random(SHAPE) < 0.7).at[0, 0].set(False)
LOSSES = [clipped.ppo_clip_loss, clipped.gspo_loss]
REDUCTIONS = [aggregate.token_mean, aggregate.sequence_mean, aggregate.sequence_sum, aggregate.constant(8)]


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_at_ratio_one_the_loss_is_minus_the_mean_advantage(loss: Loss, reduce: aggregate.Aggregation) -> None:
    advantages = ADVANTAGES[..., :1]

    def value(x: jax.Array) -> jax.Array:
        return loss(x, LOGPROBS, advantages, where=WHERE, reduce=reduce)

    actual, gradient = jax.value_and_grad(value)(LOGPROBS)
    expected, slope = jax.value_and_grad(lambda a: reduce(-a, WHERE))(jnp.broadcast_to(advantages, SHAPE))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope * advantages, rtol=1e-5, atol=1e-7)


def test_gspo_with_one_token_is_ppo() -> None:
    arrays = [x.reshape(-1, 1) for x in (LOGPROBS, OLD, ADVANTAGES, WEIGHTS)]
    bounds = {"clip_low": 0.1, "clip_high": 0.3}
    ppo, gspo = (jax.value_and_grad(lambda *x, f=loss: f(*x, **bounds))(*arrays) for loss in LOSSES)
    for actual, expected in zip(gspo, ppo, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


def test_gspo_forms_differ_only_in_the_gradient_and_only_when_weights_vary_in_a_row() -> None:
    def both(*arrays: jax.Array) -> list:
        forms = [{"straight_through": True}, {"straight_through": False}]
        options = {"clip_low": 5.0, "clip_high": 5.0, "where": WHERE}
        return [jax.value_and_grad(lambda *x, f=form: clipped.gspo_loss(*x, **options, **f))(*arrays) for form in forms]

    arrays = (LOGPROBS, OLD, ADVANTAGES[..., :1])
    same, varying = both(*arrays, WEIGHTS[..., :1]), both(*arrays, WEIGHTS)
    np.testing.assert_allclose([same[0][0], varying[0][0]], [same[1][0], varying[1][0]], rtol=1e-5)
    np.testing.assert_allclose(same[0][1], same[1][1], rtol=1e-4, atol=1e-7)
    assert not np.allclose(varying[0][1], varying[1][1], rtol=1e-2)


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_multiply_the_tokens(loss: Loss) -> None:
    plain = loss(LOGPROBS, OLD, ADVANTAGES, where=WHERE, reduce=None)
    weighted = loss(LOGPROBS, OLD, ADVANTAGES, WEIGHTS, where=WHERE, reduce=None)
    np.testing.assert_allclose(weighted, plain * WEIGHTS, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_masked_tokens_are_not_seen(loss: Loss, poison: float) -> None:
    arrays = (LOGPROBS, OLD, ADVANTAGES, WEIGHTS)
    grad = jax.value_and_grad(lambda *x: loss(*x, where=WHERE), argnums=(0, 1, 2, 3))
    clean, poisoned = grad(*arrays), grad(*(jnp.where(WHERE, x, poison) for x in arrays))
    jax.tree.map(np.testing.assert_array_equal, poisoned, clean)
    for gradient in clean[1][1:]:
        np.testing.assert_array_equal(gradient, np.zeros(SHAPE))


@pytest.mark.parametrize("loss", LOSSES)
def test_saturated_ratios_stay_finite(loss: Loss) -> None:
    for d in (1e4, -1e4):
        value, gradient = jax.value_and_grad(lambda x: loss(x, OLD, ADVANTAGES))(OLD + d)
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def test_dual_clip_and_cap_reach_the_surrogate() -> None:
    arrays = jnp.array([[3.0]]), jnp.array([[0.0]]), jnp.array([[-1.0]])
    np.testing.assert_allclose(clipped.ppo_clip_loss(*arrays), np.exp(3), rtol=1e-5)
    np.testing.assert_allclose(clipped.ppo_clip_loss(*arrays, dual_clip=3.0), 3)
    np.testing.assert_allclose(clipped.ppo_clip_loss(*arrays, cap=5.0), 5)


@pytest.mark.parametrize("loss", LOSSES)
def test_wrong_shapes_are_named(loss: Loss) -> None:
    with pytest.raises(errors.UserError, match=r"advantages has shape \(3, 2\), but logprobs has shape \(3, 2, 4\)"):
        loss(LOGPROBS, OLD, ADVANTAGES[..., 0])

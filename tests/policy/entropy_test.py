"""Clip-Cov and KL-Cov: what a selection does to value and gradient, split over micro-batches and shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import aggregate, errors, method
from rlx.policy import clipped, entropy, ratios, select, surrogates

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
ARRAYS = LOGPROBS, OLD, ADVANTAGES = tuple(jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for _ in range(3))
WHERE = jnp.asarray(RNG.random(SHAPE) < 0.8)
KEY = jax.random.key(0)
CLIP_COV = {"ratio": 0.2, "lower": 0.0, "upper": 50.0}
CONFIGS = [{"name": "clip_cov", **CLIP_COV}, {"name": "kl_cov", "ratio": 0.2, "aggregate": "sequence_mean"}]


def test_clip_cov_is_ppo_without_the_dropped_tokens() -> None:
    keep = select.clip_cov_keep(*ARRAYS, **CLIP_COV, key=KEY, where=WHERE)
    dropped = np.asarray(~keep)
    clip_cov = jax.value_and_grad(lambda x: entropy.clip_cov(x, *ARRAYS[1:], **CLIP_COV, key=KEY, where=WHERE))
    bounds = {"clip_low": 1.0, "clip_high": 1.0, "where": WHERE}
    ppo = jax.grad(lambda x: clipped.ppo_clip_loss(x, *ARRAYS[1:], **bounds))(LOGPROBS)
    value, gradient = clip_cov(LOGPROBS)
    assert dropped.any()
    np.testing.assert_allclose(gradient, np.where(dropped, 0, ppo), rtol=1e-5)
    units = clipped.ppo_clip_loss(*ARRAYS, **bounds, reduce=None)
    np.testing.assert_allclose(value, np.where(dropped, 0, units).sum() / int(WHERE.sum()), rtol=1e-5)


def test_clip_cov_without_candidates_is_ppo() -> None:
    actual = entropy.clip_cov(*ARRAYS, lower=1e3, upper=2e3, key=KEY, where=WHERE)
    np.testing.assert_array_equal(actual, clipped.ppo_clip_loss(*ARRAYS, clip_low=1.0, clip_high=1.0, where=WHERE))


def test_clip_cov_without_key_or_mask_says_what_to_pass() -> None:
    with pytest.raises(errors.UserError, match=r"pass key=jax.random.key\(seed\), or the mask as keep="):
        entropy.clip_cov(*ARRAYS)
    assert jnp.isfinite(entropy.clip_cov(*ARRAYS, keep=jnp.ones(SHAPE, bool)))


def test_kl_cov_adds_the_sign_to_the_gradient_of_the_selected() -> None:
    old = OLD.at[0].set(LOGPROBS[0])
    selected = jnp.zeros(SHAPE, bool).at[:2].set(True) & WHERE

    def total(x: jax.Array) -> jax.Array:
        return entropy.kl_cov(
            x, old, ADVANTAGES, coefficient=0.5, selected=selected, where=WHERE, reduce=aggregate.total
        )

    def plain(x: jax.Array) -> jax.Array:
        return aggregate.total(surrogates.unclipped(ratios.token(x, old), ADVANTAGES), WHERE)

    added = jax.grad(total)(LOGPROBS) - jax.grad(plain)(LOGPROBS)
    np.testing.assert_allclose(added, np.where(selected, 0.5 * np.sign(LOGPROBS - old), 0), atol=1e-6)
    np.testing.assert_array_equal(added[0], 0)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_masked_tokens_are_not_seen(poison: float) -> None:
    poisoned = [jnp.where(WHERE, x, poison) for x in ARRAYS]
    for loss, options in ((entropy.clip_cov, CLIP_COV | {"key": KEY}), (entropy.kl_cov, {"ratio": 0.3})):
        grad = jax.value_and_grad(lambda *x, f=loss, o=options: f(*x, **o, where=WHERE))
        jax.tree.map(np.testing.assert_array_equal, grad(*poisoned), grad(*ARRAYS))


def test_saturated_ratios_stay_finite() -> None:
    for d in (1e4, -1e4):
        for loss, options in ((entropy.clip_cov, {"key": KEY}), (entropy.kl_cov, {})):
            grad = jax.value_and_grad(lambda x, f=loss, o=options: f(x, OLD, ADVANTAGES, **o))
            value, gradient = grad(OLD + d)
            assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def batch_of(**more: jax.Array) -> dict[str, jax.Array]:
    return {"logprobs": LOGPROBS, "old_logprobs": OLD, "advantages": ADVANTAGES, "where": WHERE, **more}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["name"])
def test_micro_batches_add_up_to_the_whole(config: dict) -> None:
    built = rlx.build(config)
    batch = batch_of()
    constants, _ = built.prepare(batch, None, None, KEY)
    numerators, denominators = zip(
        *(
            built.aggregate.terms(
                *built.apply(
                    constants._replace(units={k: v[i : i + 2] for k, v in constants.units.items()}),
                    {k: v[i : i + 2] for k, v in batch.items()},
                    None,
                )
            )
            for i in (0, 2)
        ),
        strict=True,
    )
    whole = method.loss(built, batch, key=KEY)
    np.testing.assert_allclose(sum(numerators) / sum(denominators), whole, rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["name"])
def test_shards_add_up_to_the_whole(config: dict) -> None:
    built = rlx.build(config, axis_name="data")
    shares = jax.pmap(lambda batch: method.loss(built, batch, key=KEY), axis_name="data")(
        {k: v.reshape(4, 1, *SHAPE[1:]) for k, v in batch_of().items()}
    )
    np.testing.assert_allclose(shares.sum(), method.loss(rlx.build(config), batch_of(), key=KEY), rtol=1e-5)


def test_rollout_weights_of_the_batch_are_used() -> None:
    weights = jnp.asarray(RNG.random(SHAPE), jnp.float32)
    actual = method.loss(rlx.build("kl_cov"), batch_of(weights=weights))
    np.testing.assert_allclose(actual, entropy.kl_cov(*ARRAYS, weights, where=WHERE), rtol=1e-6)

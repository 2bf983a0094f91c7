"""Self-refinement: extrapolation, labels, the threshold and the method that keeps it, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, method
from rlx.preference import refinement

RNG = np.random.default_rng(0)
POLICY, REFERENCE = jnp.asarray(RNG.normal(size=(2, 3, 2, 4, 5)), jnp.float32)
TOKENS = jnp.asarray(RNG.integers(0, 5, (3, 2, 4)))
WHERE = jnp.asarray(np.arange(4) < RNG.integers(1, 5, (3, 2, 1)))
BATCH = {"policy_logits": POLICY, "reference_logits": REFERENCE, "tokens": TOKENS, "where": WHERE}


def margin(logits):
    logps = [np.asarray(jax.nn.log_softmax(x)) for x in (logits, REFERENCE)]
    d = np.take_along_axis(logps[0] - logps[1], np.asarray(TOKENS)[..., None], -1)[..., 0]
    return np.where(WHERE, d, 0).sum(-1) @ np.array([1, -1])


def test_by_hand():
    m, mixed = 0.1 * margin(POLICY), 0.1 * margin(1.5 * POLICY - 0.5 * REFERENCE)
    threshold = np.median(mixed)
    epsilon = np.where(mixed > threshold, 0, 0.2)
    assert sorted(epsilon) == [0, 0.2, 0.2]  # at the threshold is not above it
    expected = (1 - epsilon) * np.logaddexp(0, -m) + epsilon * np.logaddexp(0, m)
    keywords = {"mix": 1.5, "alpha": 0.2, "threshold": threshold + 1e-6, "where": WHERE, "reduce": None}
    found = refinement.spa_self_refinement(POLICY, REFERENCE, TOKENS, **keywords)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_impossible_tokens_stay_impossible():
    """With mix above 1, -inf of the reference would become +inf, and of both, NaN."""
    policy, reference = (x.at[..., 4].set(-jnp.inf) for x in (POLICY, REFERENCE))
    found = refinement.extrapolate(policy, reference.at[..., 3].set(-jnp.inf), 2.0)
    assert np.isneginf(found[..., 3:]).all() and np.isfinite(found[..., :3]).all()
    tokens = TOKENS % 3
    value, slope = jax.value_and_grad(refinement.spa_self_refinement)(policy, reference, tokens, mix=2.0, where=WHERE)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_the_threshold_is_of_the_latest_margins():
    """Of the margins 0, 1, ... 100 the latest 50 begin at 51, and those of index 5 and 6 are 56 and 57."""
    signal = refinement.trust_threshold()
    state, advance = signal.init(), jax.jit(signal.update)
    for value in range(101):
        _, state = advance(jnp.float32(value), state)
    np.testing.assert_allclose(signal.update(jnp.float32(0), state)[0], 56.5)


def test_the_method_waits_for_its_threshold_and_for_the_warm_up():
    built = rlx.build({"name": "spa_self_refinement", "total_steps": 100, "alpha": 0.2})
    params, state = built.init(jax.random.key(0), method.Shapes())
    prepare = jax.jit(built.prepare)
    shared = []
    for _ in range(52):
        constants, state = prepare(BATCH, params, state, None)
        shared.append(constants.shared)
    thresholds, progress = (np.array([s[name] for s in shared]) for name in ("threshold", "progress"))
    np.testing.assert_array_equal(thresholds[:50], 0)
    np.testing.assert_allclose(thresholds[50:], 0.1 * margin(POLICY).mean(), rtol=1e-4)
    np.testing.assert_allclose(progress, np.arange(52) / 100, atol=1e-6)
    losses, _ = built.apply(constants, BATCH, params)
    keywords = {"alpha": 0.2, "threshold": float(thresholds[-1]), "where": WHERE, "reduce": None}
    np.testing.assert_allclose(losses, refinement.spa_self_refinement(POLICY, REFERENCE, TOKENS, **keywords), rtol=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match=r"quantile must be in \[0, 0.98\), got 1.0"):
        refinement.spa_method(quantile=1.0)
    with pytest.raises(errors.UserError, match=r"epsilon is the rate of flipped labels"):
        refinement.spa_method(alpha=0.5)
    with pytest.raises(errors.UserError, match="tokens has shape .*: spa_self_refinement wants"):
        refinement.spa_self_refinement(POLICY[:, :1], REFERENCE[:, :1], TOKENS[:, :1])

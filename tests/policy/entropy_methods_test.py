"""Losses that hold the entropy: special cases, and state that gives the same in parts as in one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, method
from rlx.policy import aepo, clipped, entropy_bonus, entropy_weights, epo, hapo, siren

RNG = np.random.default_rng(0)
SHAPE = (4, 1, 3)
LOGPROBS, OLD = (jnp.asarray(-np.abs(RNG.normal(size=SHAPE)), jnp.float32) for _ in range(2))
ADVANTAGES = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
ENTROPY = jnp.asarray(np.abs(RNG.normal(size=SHAPE)), jnp.float32)
WHERE = jnp.asarray(np.arange(3) < np.array([[[3]], [[2]], [[3]], [[1]]]))
ARRAYS = (LOGPROBS, OLD, ADVANTAGES)
BATCH = {"logprobs": LOGPROBS, "old_logprobs": OLD, "advantages": ADVANTAGES, "where": WHERE, "entropy": ENTROPY}
BATCH |= {"top_p_entropy": ENTROPY, "turn_ids": jnp.asarray(RNG.integers(0, 3, SHAPE))}
DUAL = {"dual_clip": 3.0, "where": WHERE}
LAST = jnp.zeros(SHAPE)

PPO = {
    "steer": lambda **o: entropy_weights.steer(*ARRAYS, ENTROPY, minimum=1.0, **o),
    "steer, linear": lambda **o: entropy_weights.steer(*ARRAYS, ENTROPY, linear=True, minimum=1.0, maximum=1.0, **o),
    "entropy_bonus_pg": lambda **o: entropy_bonus.entropy_bonus_pg(*ARRAYS, ENTROPY, coefficient=0.0, **o),
    "aepo_agentic": lambda **o: aepo.aepo_agentic(*ARRAYS, ENTROPY, weight=0.0, **o),
    "hapo": lambda **o: hapo.hapo(*ARRAYS, ENTROPY, alpha=0.0, beta=0.0, **o),
    "epo": lambda **o: epo.epo(*ARRAYS, ENTROPY, LAST, coefficient=0.0, **o),
    "siren": lambda **o: siren.siren(*ARRAYS, ENTROPY, coefficient=0.0, **o),
}


@pytest.mark.parametrize("name", PPO)
def test_without_its_strength_it_is_ppo(name: str) -> None:
    bounds = {"clip_low": 0.2, "clip_high": 0.28}
    expected = clipped.ppo_clip_loss(*ARRAYS, **bounds, **DUAL)
    np.testing.assert_allclose(PPO[name](**bounds, **DUAL), expected, rtol=1e-5)


def test_the_clip_of_aepo_keeps_the_gradient_of_a_likely_token() -> None:
    grad = jax.grad(lambda x: aepo.aepo_agentic(x, jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1))))
    np.testing.assert_allclose(grad(jnp.ones((1, 1))), [[-1.28]], rtol=1e-6)
    ppo = jax.grad(lambda x: clipped.ppo_clip_loss(x, jnp.zeros((1, 1)), jnp.ones((1, 1))))
    np.testing.assert_array_equal(ppo(jnp.ones((1, 1))), 0)


def test_no_good_tempered_rollout_leaves_the_batch() -> None:
    chosen = aepo.aepo_arbitrary(np.zeros(3), 0.1)
    assert not len(chosen.rows) and chosen.temperature == 1.2
    batch = {"advantages": np.ones(2), "logprobs": np.ones((2, 3))}
    same = aepo.replace_rows(batch, {"logprobs": np.zeros((3, 3))}, chosen.rows)
    jax.tree.map(np.testing.assert_array_equal, same, batch)
    with pytest.raises(errors.UserError, match="3 tempered rows do not fit into a batch of 2"):
        aepo.replace_rows(batch, {"logprobs": np.zeros((3, 3))}, np.arange(3))
    with pytest.raises(errors.UserError, match=r"must be \[N\], one per tempered rollout"):
        aepo.aepo_arbitrary(np.zeros((3, 1)), 0.1)


def test_a_band_pushes_from_its_sides_only() -> None:
    for mean, slope in ((0.1, -1.0), (0.5, 0.0), (2.0, 1.0)):
        entropy = jnp.full((1, 4), mean)
        value, grad = jax.value_and_grad(lambda x: entropy_bonus.entropy_band(x, coefficient=1.0))(entropy)
        np.testing.assert_allclose(grad, np.full((1, 4), slope / 4))
        np.testing.assert_allclose(value, max(mean - 1.0, 0.2 - mean, 0), rtol=1e-5)
    with pytest.raises(errors.UserError, match="2 is above high, 1"):
        entropy_bonus.entropy_band(ENTROPY, low=2, high=1)


def test_hapo_as_released_never_sees_a_low_entropy() -> None:
    statistics = hapo.log_entropy(ENTROPY, pivot=0.5)
    paper, released = (hapo.relative_entropy(ENTROPY, statistics, signed=s) for s in (True, False))
    np.testing.assert_allclose(released, np.abs(paper))
    assert paper.min() == -1 and paper.max() == 1


def apart(built: method.Method, batch: dict, state: dict, cut: int = 1) -> tuple:
    """Loss and gradient in logprobs from two micro-batches, and the next state."""
    constants, new = built.prepare(batch, {}, state, None)

    def numerator(x: jax.Array, rows: slice) -> tuple:
        part = {k: v[rows] for k, v in (batch | x).items()}
        units = constants._replace(units={k: v[rows] for k, v in constants.units.items()})
        return built.aggregate.terms(*built.apply(units, part, {}))

    names = [n for n in built.needs if jnp.issubdtype(batch[n].dtype, jnp.floating)]
    x = {n: batch[n] for n in names}
    total, grads = [0.0, 0.0], jax.tree.map(jnp.zeros_like, x)
    for rows in (slice(0, cut), slice(cut, None)):
        (value, count), grad = jax.value_and_grad(numerator, has_aux=True)(x, rows)
        total = [total[0] + value, total[1] + count]
        grads = jax.tree.map(jnp.add, grads, grad)
    return total[0] / total[1], jax.tree.map(lambda g: g / total[1], grads), new


@pytest.mark.parametrize("aggregation", ["token_mean", "constant(7)"])
def test_siren_in_parts_has_the_gradient_of_the_square(aggregation: str) -> None:
    config = {"name": "siren", "coefficient": 0.5, "rho": 0.4, "policy_aggregate": aggregation}
    built = rlx.build(config)
    _, state = built.init(jax.random.key(0), method.Shapes())
    earlier = BATCH | {"top_p_entropy": 2 * ENTROPY}
    _, state = built.prepare(earlier, {}, state, None)
    anchor = siren.peak_entropy(2 * ENTROPY, rho=0.4, where=WHERE).value

    def whole(x: dict) -> jax.Array:
        reduce = rlx.aggregate.by_name(aggregation)
        bounds = {"clip_low": 0.28, "clip_high": 0.28, **DUAL}
        policy = clipped.ppo_clip_loss(x["logprobs"], OLD, ADVANTAGES, **bounds, reduce=reduce)
        return policy + 0.5 * jnp.square(siren.peak_entropy(x["top_p_entropy"], rho=0.4, where=WHERE).value - anchor)

    value, grads, state = apart(built, BATCH, state)
    x = {"logprobs": LOGPROBS, "top_p_entropy": ENTROPY}
    expected, expected_grads = jax.value_and_grad(whole)(x)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, grad in expected_grads.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(state["anchor"].mean, anchor, rtol=1e-6)


def test_epo_penalises_against_earlier_batches_alone() -> None:
    built = rlx.build({"name": "epo", "steps": 3, "coefficient": 1.0, "penalty": 5.0, "beta": 2.0})
    _, state = built.init(jax.random.key(0), method.Shapes())
    first, _, state = apart(built, BATCH, state)
    options = {"coefficient": 1.0, "penalty": 5.0, "beta": 2.0, "where": WHERE}
    np.testing.assert_allclose(first, epo.epo(*ARRAYS, ENTROPY, jnp.full(SHAPE, -1.0), **options), rtol=1e-5)
    means, seen = epo.step_means(ENTROPY, BATCH["turn_ids"], 3, where=WHERE)
    assert seen.all()
    later = BATCH | {"entropy": ENTROPY.at[0].multiply(3)}
    second, _, state = apart(built, later, state, cut=3)
    expected = epo.epo(*ARRAYS, later["entropy"], means[BATCH["turn_ids"]], phase=epo.phase_weight(1), **options)
    np.testing.assert_allclose(second, expected, rtol=1e-5)
    assert state["epoch"] == 2
    short = later | {"turn_ids": jnp.zeros(SHAPE, int)}  # no episode gets past the middle: no penalty
    third, _, _ = apart(built, short, state)
    none = epo.epo(*ARRAYS, later["entropy"], jnp.full(SHAPE, -1.0), **options)
    np.testing.assert_allclose(third, none, rtol=1e-5)


def test_epo_per_response_judges_the_mean() -> None:
    entropy = jnp.array([[0.0, 2.0], [0.0, 0.0]])
    found = epo.smoothing_penalty(entropy, jnp.ones((2, 1)), per="response")
    np.testing.assert_allclose(found, [[0, 0], [0.1, 0.1]])
    with pytest.raises(errors.UserError, match="'token' or 'response', got 'row'"):
        epo.smoothing_penalty(entropy, entropy, per="row")
    with pytest.raises(errors.UserError, match="at least 1 step and 2 epochs, got steps=0"):
        epo.epo_method(steps=0)


def test_the_controlled_bonus_uses_what_it_has_measured() -> None:
    low = {"name": "adaptive_entropy_bonus_pg", "target": 100.0, "rate": 0.5, "maximum": 0.75}
    built = rlx.build(low)
    _, state = built.init(jax.random.key(0), method.Shapes())
    for coefficient in (0.0, 0.5, 0.75):
        value, _, state = apart(built, BATCH, state)
        expected = entropy_bonus.entropy_bonus_pg(*ARRAYS, ENTROPY, coefficient=coefficient, where=WHERE)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    with pytest.raises(errors.UserError, match="Unknown rule 'stepp'. Did you mean 'step'"):
        rlx.build(low | {"rule": "stepp"})


def test_hapo_hands_the_sampler_the_statistics_of_the_last_batch() -> None:
    built = rlx.build({"name": "hapo_policy", "pivot": 0.5})
    _, state = built.init(jax.random.key(0), method.Shapes())
    value, _, state = apart(built, BATCH, state)
    np.testing.assert_allclose(value, hapo.hapo(*ARRAYS, ENTROPY, pivot=0.5, signed=False, where=WHERE), rtol=1e-5)
    expected = hapo.log_entropy(ENTROPY, pivot=0.5, where=WHERE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state["statistics"], expected)

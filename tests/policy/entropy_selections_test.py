"""Selections and shapings by entropy: exact counts under ties, errors, and the same on four shards as on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rlx import errors
from rlx.policy import entropy_advantages, entropy_selections, entropy_weights, select
from rlx.train import sharding

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
WHERE = RNG.random(SHAPE) < 0.8
LOGPROBS = -np.abs(RNG.normal(size=SHAPE)).astype(np.float32)
ENTROPY = np.abs(RNG.normal(size=SHAPE)).astype(np.float32)
ADVANTAGES = RNG.normal(size=SHAPE).astype(np.float32)
TURNS = RNG.integers(-1, 3, SHAPE)

PARTS = {
    "high_entropy": (entropy_selections.high_entropy, (ENTROPY,), {"fraction": 0.3}),
    "high_entropy exactly": (entropy_selections.high_entropy, (ENTROPY.round(),), {"fraction": 0.3, "exact": True}),
    "entropy_clip_b": (entropy_selections.entropy_clip_b, (LOGPROBS, ENTROPY, ADVANTAGES), {"mu": 0.3}),
    "entropy_clip_v": (
        entropy_selections.entropy_clip_v,
        (LOGPROBS, ENTROPY, ENTROPY.round(), ADVANTAGES),
        {"mu": 0.1, "max_fraction": 0.2},
    ),
    "steer": (entropy_weights.steer_weights, (LOGPROBS, LOGPROBS, ADVANTAGES, ENTROPY), {"linear": True}),
    "aepo": (entropy_advantages.aepo_advantage, (ADVANTAGES, ENTROPY), {}),
    "empg": (entropy_advantages.empg, (ADVANTAGES, ENTROPY, TURNS), {"zeta": 0.5}),
    "covariance": (select.covariance, (LOGPROBS, ADVANTAGES), {}),
}


@pytest.mark.parametrize("name", PARTS)
def test_four_shards_agree_with_one(name: str) -> None:
    function, arrays, options = PARTS[name]
    expected = function(*arrays, **options, where=WHERE)
    place = NamedSharding(sharding.make_mesh({"data": 4}), PartitionSpec("data"))
    placed = jax.device_put((arrays, WHERE), place)
    under_jit = jax.jit(lambda a, w: function(*a, **options, where=w))(*placed)
    parts = jax.tree.map(lambda x: x[:, None], (arrays, WHERE))
    mapped = jax.pmap(lambda a, w: function(*a, **options, where=w, axis_name="i"), axis_name="i")(*parts)
    for found in (under_jit, mapped.reshape(SHAPE)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_exactly_the_promised_number_under_ties() -> None:
    for fraction, count in ((0.2, 2), (0.5, 5), (0.01, 1), (1.0, 10)):
        chosen = entropy_selections.high_entropy(jnp.ones(10), fraction=fraction, exact=True)
        assert chosen.sum() == count
    assert entropy_selections.high_entropy(jnp.ones(10)).all()  # a threshold keeps every token at it


def test_clip_v_drops_no_more_than_its_share_under_ties() -> None:
    logprobs = jnp.log(jnp.full(10, 0.5))
    entropy, expected = jnp.zeros(10), jnp.zeros(10).at[5:].set(1.0)
    for advantage, dropped in ((-1.0, 2), (0.0, 5), (1.0, 0)):
        keep = entropy_selections.entropy_clip_v(
            logprobs, entropy, expected, jnp.full(10, advantage), mu=1.0, max_fraction=0.2
        )
        assert (~keep).sum() == dropped


def test_equal_tokens_are_all_kept() -> None:
    equal = (jnp.full(4, -1.0), jnp.full(4, 0.5))
    assert entropy_selections.entropy_clip_b(*equal, -jnp.ones(4), mu=0.0).all()
    assert entropy_selections.entropy_clip_v(*equal, jnp.full(4, 0.7), -jnp.ones(4), mu=0.0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entropy_selections.high_entropy(ENTROPY, fraction=0.0), "fraction is a fraction .* got 0"),
        (lambda: entropy_selections.peaks(ENTROPY, rho=2.0), r"rho is a quantile .* got 2"),
        (lambda: entropy_advantages.empg(ADVANTAGES, ENTROPY, TURNS, centre="row"), "'step' or 'token', got 'row'"),
        (lambda: entropy_advantages.entropy_advantage_shaping(ADVANTAGES, ENTROPY, kappa=0), "kappa must be above 0"),
        (lambda: entropy_weights.steer_weights(*[ENTROPY] * 4, minimum=0), "minimum must be above 0"),
    ],
)
def test_errors_name_the_culprit(call, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        call()


def test_shaping_never_turns_a_sign() -> None:
    shaped = entropy_advantages.entropy_advantage_shaping(ADVANTAGES, 100 * ENTROPY, kappa=1.5)
    assert (np.sign(shaped) == np.sign(ADVANTAGES)).all()


def test_almost_equal_entropies_scale_no_advantage() -> None:
    entropy = jnp.full(4, 1.1) * jnp.array([1, 1 + 1e-7, 1, 1 - 1e-7])
    np.testing.assert_array_equal(entropy_advantages.aepo_advantage(jnp.ones(4), entropy), 1)


def test_steps_may_leave_out_numbers() -> None:
    found = entropy_advantages.empg(jnp.zeros((1, 4)), jnp.array([[1.0, 9.0, 0.0, 2.0]]), jnp.array([[0, -1, 2, 3]]))
    same = entropy_advantages.empg(jnp.zeros((1, 3)), jnp.array([[1.0, 0.0, 2.0]]), jnp.array([[0, 1, 2]]))
    np.testing.assert_allclose(found[:, [0, 2, 3]], same, rtol=1e-6)
    assert found[0, 1] == 0 and found[0, 0] > found[0, 1] > found[0, 3]


def test_hapo_advantage_of_equal_lengths_is_the_plain_average() -> None:
    rewards, lengths = jnp.array([1.0, 0.0, 0.0, 1.0]), jnp.full(4, 7)
    np.testing.assert_allclose(entropy_advantages.hapo_advantage(rewards, lengths)[:, 0], 2 * rewards - 1, rtol=1e-5)


def test_hapo_advantage_falls_back_where_one_is_extreme() -> None:
    rewards, lengths = jnp.array([1.0, 0.0]), jnp.array([1, 99])
    np.testing.assert_allclose(entropy_advantages.hapo_advantage(rewards, lengths)[0], 0.7071, rtol=1e-4)
    kept = entropy_advantages.hapo_advantage(rewards, lengths, threshold=20.0)
    np.testing.assert_allclose(kept[0], 0.99 / np.sqrt(0.01 * 0.99), rtol=1e-4)

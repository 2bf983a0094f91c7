"""Recipes: each is what its parts are by hand, and in micro-batches and on shards what it is on the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import aggregate, catalog, errors, method, numerics
from rlx.catalog import recipes
from rlx.policy import corrections, entropy_selections, ratios, regularize, select, small_parts, surrogates
from rlx.policy.objective import policy_loss
from tests import samples

RNG = np.random.default_rng(0)
ROWS, K, T = 4, 3, 5
LOGPROBS, OLD, REFERENCE, ROLLOUT, VALUES = (
    jnp.asarray(-np.abs(RNG.normal(1.0, 0.5, (ROWS, K, T))), jnp.float32) for _ in range(5)
)
ENTROPY = jnp.asarray(RNG.random((ROWS, K, T)), jnp.float32)
REWARDS = jnp.asarray(RNG.integers(0, 2, (ROWS, K)), jnp.float32).at[0].set(jnp.array([1.0, 0.0, 1.0]))
WHERE = jnp.arange(T) < jnp.asarray(RNG.integers(1, T + 1, (ROWS, K)))[..., None]
LAST = jnp.arange(T) == WHERE.sum(-1, keepdims=True) - 1
TOKEN_REWARDS = jnp.where(LAST, REWARDS[..., None], 0)
OVERLONG = rlx.dapo_overlong_penalty(WHERE.sum(-1), max_length=4, buffer_length=2, where=WHERE.any(-1))
KEY = jax.random.key(0)
BATCH = {
    "logprobs": LOGPROBS,
    "old_logprobs": OLD,
    "reference_logprobs": REFERENCE,
    "rollout_logprobs": ROLLOUT,
    "entropy": ENTROPY,
    "rewards": REWARDS,
    "token_rewards": TOKEN_REWARDS,
    "values": VALUES,
    "where": WHERE,
}


def grpo(**options):
    return rlx.grpo_advantage(REWARDS, where=WHERE.any(-1), **options)


def ppo(logprobs, advantages, reduce=aggregate.token_mean, where=WHERE, **options):
    return policy_loss(logprobs, OLD, advantages, where=where, reduce=reduce, **options)


def whitened():
    gae = rlx.gae_advantage(TOKEN_REWARDS, VALUES, gamma=1.0, lam=0.95, where=WHERE)
    return numerics.whiten(gae.advantages, where=WHERE)


def clip_cov(x):
    keep = {"lower": 0.0, "ratio": 0.3, "key": KEY}
    return rlx.clip_cov(x, OLD, grpo(), **keep, where=WHERE)


BY_HAND = {
    "grpo": (
        {},
        lambda x: (
            ppo(x, grpo(), aggregate.sequence_mean)
            + 0.04 * aggregate.sequence_mean(regularize.kl_penalty(x, REFERENCE, where=WHERE), WHERE)
        ),
    ),
    "dr_grpo": ({}, lambda x: ppo(x, grpo(scale=False), aggregate.constant(1024))),
    "dapo": ({"reward_bonus": None}, lambda x: rlx.ppo_clip_loss(x, OLD, grpo(), clip_high=0.28, where=WHERE)),
    "ppo": ({}, lambda x: ppo(x, whitened())),
    "rloo": (
        {},
        lambda x: rlx.reinforce_loss(
            x, rlx.rloo_advantage(REWARDS, where=WHERE.any(-1)), where=WHERE, reduce=aggregate.sequence_sum
        ),
    ),
    "gspo": ({}, lambda x: rlx.gspo_loss(x, OLD, grpo(), where=WHERE)),
    "gmpo": ({}, lambda x: rlx.gmpo_loss(x, OLD, grpo(), where=WHERE)),
    "cispo": ({}, lambda x: rlx.cispo_loss(x, OLD, grpo(), where=WHERE)),
    "sapo": ({}, lambda x: rlx.sapo_loss(x, OLD, grpo(), where=WHERE)),
    "vespo": ({}, lambda x: rlx.vespo_loss(x, OLD, grpo(), where=WHERE)),
    "topr": (
        {},
        lambda x: rlx.topr_loss(x, OLD, grpo(scale=False), where=WHERE, reduce=aggregate.sequence_sum),
    ),
    "red_weight": (
        {},
        lambda x: rlx.red_weight_loss(x, OLD, rlx.rec_advantage(REWARDS, where=WHERE.any(-1)), where=WHERE),
    ),
    "forking_tokens": (
        {},
        lambda x: ppo(
            x,
            grpo(),
            surrogate=surrogates.clip(0.2, 0.28),
            keep=entropy_selections.high_entropy(ENTROPY, where=WHERE),
        ),
    ),
    "kl_cov_grpo": ({}, lambda x: rlx.kl_cov(x, OLD, grpo(), where=WHERE)),
    "clip_cov_grpo": ({"select": "clip_cov_keep(1.0, 1.0, 0.3, lower=0.0)"}, clip_cov),
    "tis_grpo": (
        {},
        lambda x: rlx.ppo_clip_loss(
            x,
            OLD,
            grpo(),
            corrections.truncated_importance_sampling(OLD, ROLLOUT, where=WHERE),
            clip_high=0.28,
            where=WHERE,
        ),
    ),
    "reinforce_plus_plus": (
        {},
        lambda x: ppo(
            x,
            rlx.reinforce_plus_plus_advantage(
                rlx.kl_in_reward(TOKEN_REWARDS, OLD, REFERENCE, where=WHERE), where=WHERE
            ),
        ),
    ),
}
CHANGED = {
    "another surrogate, selection and reduction": (
        {"surrogate": "cispo", "select": "high_entropy(0.4)", "aggregate": "constant(1024)", "kl": None},
        lambda x: policy_loss(
            x,
            OLD,
            grpo(),
            surrogate=surrogates.cispo(),
            keep=entropy_selections.high_entropy(ENTROPY, fraction=0.4, where=WHERE),
            where=WHERE,
            reduce=aggregate.constant(1024),
        ),
    ),
    "a bonus on the reward of the response": (
        {"reward_bonus": "dapo_overlong_penalty(4, 2)", "kl": None, "aggregate": "token_mean"},
        lambda x: ppo(x, rlx.grpo_advantage(REWARDS + OVERLONG, where=WHERE.any(-1))),
    ),
    "a bonus on the reward of the last token": (
        {"advantage": "reward_to_go", "reward_bonus": "dapo_overlong_penalty(4, 2)", "kl": None, "aggregate": "mean"},
        lambda x: ppo(x, (REWARDS + OVERLONG)[..., None]),
    ),
    "rewards made of other arrays": (
        {"reward": lambda entropy: entropy.sum(-1), "kl": None, "aggregate": "mean"},
        lambda x: ppo(x, rlx.grpo_advantage(ENTROPY.sum(-1), where=WHERE.any(-1))),
    ),
    "a mask shrinks the denominator": (
        {"mask": "low_probability(0.4)", "kl": None, "aggregate": "token_mean"},
        lambda x: ppo(x, grpo(), where=small_parts.low_probability(OLD, threshold=0.4, where=WHERE)),
    ),
    "two selections keep what both do": (
        {"select": ["low_probability(0.4)", "high_entropy(0.5)"], "kl": None, "aggregate": "token_mean"},
        lambda x: ppo(
            x,
            grpo(),
            keep=small_parts.low_probability(OLD, threshold=0.4, where=WHERE)
            & entropy_selections.high_entropy(ENTROPY, fraction=0.5, where=WHERE),
        ),
    ),
    "an entropy bonus and a corrected KL": (
        {"entropy": 0.1, "kl": "k2(0.5, corrected=True)", "aggregate": "token_mean"},
        lambda x: (
            ppo(x, grpo())
            - 0.1 * aggregate.token_mean(ENTROPY, WHERE)
            + 0.25 * aggregate.token_mean(jnp.square(x - REFERENCE) * ratios.token(x, OLD, where=WHERE), WHERE)
        ),
    ),
    "a function of one's own": (
        {"weight": lambda lengths: 1 / lengths, "kl": None, "aggregate": "token_mean"},
        lambda x: ppo(x, grpo(), weights=1 / WHERE.sum(-1, keepdims=True)),
    ),
    "weights twice": (
        {"weight": ["truncated_importance_sampling(threshold=1.5)", lambda rewards: 1 + rewards], "kl": None},
        lambda x: ppo(
            x,
            grpo(),
            aggregate.sequence_mean,
            weights=corrections.truncated_importance_sampling(OLD, ROLLOUT, threshold=1.5, where=WHERE)
            * (1 + REWARDS[..., None]),
        ),
    ),
}
CASES = {name: (name, *case) for name, case in BY_HAND.items()} | {
    label: ("grpo", *case) for label, case in CHANGED.items()
}


@pytest.mark.parametrize(("name", "changes", "by_hand"), CASES.values(), ids=CASES)
def test_a_recipe_is_its_parts_by_hand(name, changes, by_hand):
    built = rlx.build({"name": name, **changes})
    assert set(built.needs) | set(built.prepare_needs) <= set(BATCH)
    expected = jax.jit(jax.value_and_grad(by_hand))(LOGPROBS)
    actual = jax.jit(jax.value_and_grad(lambda x: method.loss(built, BATCH | {"logprobs": x}, key=KEY)))(LOGPROBS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), actual, expected)


@pytest.mark.parametrize(("name", "changes", "by_hand"), CASES.values(), ids=CASES)
def test_once_prepared_a_recipe_takes_each_response_by_itself(name, changes, by_hand):
    built = rlx.build({"name": name, **changes})
    assert built.separable
    constants, _ = built.prepare(BATCH, {}, {}, KEY)

    def apart(arrays):
        return {key: x.reshape(-1, 1, *x.shape[2:]) for key, x in arrays.items()}

    whole = built.apply(constants, BATCH, {})
    split = built.apply(method.Constants(constants.shared, apart(constants.units)), apart(BATCH), {})
    for field, ours, theirs in zip(("losses", "where"), split, whole, strict=True):
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=1e-6, err_msg=field)
    both = [built.aggregate.terms(*found) for found in (split, whole)]
    np.testing.assert_allclose(*both, rtol=1e-5)


COUPLED = {
    "name": "grpo",
    "advantage": "rloo",
    "shape": ["entropy_advantage_shaping", "whiten"],
    "surrogate": "clip(0.2, 0.28, dual=3.0)",
    "weight": "truncated_importance_sampling(batch_normalize=True)",
    "select": ["high_entropy(0.4)", "clip_cov_keep(1.0, 1.0, 0.2, lower=0.0)"],
    "mask": "off_policy_sequence_mask(1.0)",
    "entropy": 0.01,
    "aggregate": "sequence_mean",
}


def terms(built, batch, constants):
    def numerator(x):
        return built.aggregate.terms(*built.apply(constants, batch | {"logprobs": x}, {}))

    return jax.jit(jax.value_and_grad(numerator, has_aux=True))(batch["logprobs"])


def test_micro_batches_of_a_recipe_are_exact():
    built = rlx.build(COUPLED)
    assert built.coupling == "batch" and built.splittable
    constants, _ = jax.jit(built.prepare)(BATCH, {}, {}, KEY)
    (numerator, denominator), gradient = terms(built, BATCH, constants)
    parts = []
    for rows in (slice(0, 1), slice(1, 4)):
        units = {name: x[rows] for name, x in constants.units.items()}
        part = {name: x[rows] for name, x in BATCH.items()}
        parts.append(terms(built, part, method.Constants(constants.shared, units)))
    np.testing.assert_allclose(sum(p[0][0] for p in parts), numerator, rtol=1e-5)
    np.testing.assert_allclose(sum(p[0][1] for p in parts), denominator, rtol=1e-6)
    np.testing.assert_allclose(jnp.concatenate([p[1] for p in parts]), gradient, rtol=1e-5, atol=1e-7)


def test_shards_of_a_recipe_are_exact():
    """The global loss, from a method built for the axis and from a direct call with it."""
    config = COUPLED | {"entropy": 0.0}
    expected = jax.jit(lambda batch: method.loss(rlx.build(config), batch, key=KEY))(BATCH)
    over = rlx.build(config, axis_name="rows")
    stages = {name: value for name, value in config.items() if name not in ("name", "aggregate", "entropy")}
    stages |= {"reduce": aggregate.sequence_mean, "key": KEY}

    def share(part):
        direct = rlx.grpo(**(stages | part), axis_name="rows")
        return jax.lax.psum((method.loss(over, part, key=KEY), direct), "rows")

    found = jax.pmap(share, axis_name="rows")({name: x[:, None] for name, x in BATCH.items()})
    np.testing.assert_allclose(found, np.full((2, ROWS), expected), rtol=1e-5)


def test_no_gradient_flows_through_what_prepare_computes():
    """The selection by covariance reads the log-probabilities, yet the gradient is that of a fixed selection."""
    changes = {"select": "kl_cov_select(0.3)", "kl": None}
    built = rlx.build({"name": "grpo", **changes})
    constants, _ = built.prepare(BATCH, {}, {})
    fixed = select.kl_cov_select(LOGPROBS, grpo(), ratio=0.3, where=WHERE)
    np.testing.assert_array_equal(constants.units["select"], fixed)
    whole = jax.grad(lambda x: method.loss(built, BATCH | {"logprobs": x}))(LOGPROBS)
    expected = jax.grad(lambda x: ppo(x, grpo(), aggregate.sequence_mean, keep=fixed))(LOGPROBS)
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-7)
    of_rewards = jax.grad(lambda r: method.loss(built, BATCH | {"rewards": r}))(REWARDS)
    np.testing.assert_array_equal(of_rewards, 0)


@pytest.mark.parametrize("name", recipes.ENTRIES)
def test_published_recipes_declare_what_they_read_and_couple(name):
    entry, built = catalog.lookup(name), rlx.build(name)
    assert entry.coupling == built.coupling and entry.needs[0] == "logprobs"
    assert set(entry.needs) == {*built.needs, *built.prepare_needs} <= set(rlx.types.VOCABULARY)
    assert built.name == name and built.splittable


def test_arrays_follow_from_the_parts():
    built = rlx.build({"name": "grpo", "select": "high_entropy(0.2)"})
    assert built.needs == ("logprobs", "old_logprobs", "reference_logprobs")
    assert built.prepare_needs == ("rewards", "entropy") and built.coupling == "batch"
    built = rlx.build({"name": "grpo", "kl": None, "entropy": 0.1, "ratio": "none", "surrogate": "reinforce"})
    assert built.needs == ("logprobs", "entropy") and built.coupling == "group"
    built = rlx.build({"name": "grpo", "advantage": None, "old_kl": "k2(0.1)", "ratio": "none", "kl": None})
    assert built.needs == ("logprobs", "old_logprobs") and built.prepare_needs == ("advantages",)
    assert built.coupling == "example"
    built = rlx.build({"name": "grpo", "reward": "pear", "reward_bonus": "dapo_overlong_penalty"})
    assert built.prepare_needs == ("entropy", "correct", "think_ends")
    assert rlx.build({"name": "grpo", "reward_bonus": "dapo_overlong_penalty"}).prepare_needs == ("rewards",)


def test_a_direct_call_is_the_method():
    arrays = (LOGPROBS, OLD, REFERENCE, REWARDS)
    expected = method.loss(rlx.build("grpo"), BATCH)
    np.testing.assert_allclose(rlx.grpo(*arrays, where=WHERE), expected, rtol=1e-6)
    named = dict(zip(("logprobs", "old_logprobs", "reference_logprobs", "rewards"), arrays, strict=True))
    np.testing.assert_allclose(rlx.grpo(**named, where=WHERE), expected, rtol=1e-6)
    units = rlx.grpo(*arrays, where=WHERE, reduce=None)
    np.testing.assert_allclose(aggregate.sequence_mean(units, WHERE), expected, rtol=1e-6)
    actual = rlx.dapo(LOGPROBS, OLD, REWARDS, select="high_entropy(0.2)", entropy=ENTROPY, where=WHERE)
    np.testing.assert_allclose(actual, method.loss(rlx.build("forking_tokens"), BATCH), rtol=1e-6)


def test_weights_of_the_batch_join_those_of_the_recipe():
    weights = jnp.full((ROWS, K, T), 2.0)
    expected = 2 * method.loss(rlx.build("tis_grpo"), BATCH)
    np.testing.assert_allclose(method.loss(rlx.build("tis_grpo"), BATCH | {"weights": weights}), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlx.dr_grpo(LOGPROBS, OLD), "advantage 'dr_grpo' needs 'rewards', which the batch does not have"),
        (lambda: rlx.dapo(LOGPROBS, OLD, REWARDS, REWARDS), "4 arrays by position, but the recipe needs 3"),
        (lambda: rlx.dapo(LOGPROBS, OLD, REWARDS, entrpy=0.1), "'entrpy' is neither a stage nor an array.* 'entropy'"),
    ],
)
def test_wrong_arrays_are_named(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()


def test_ragged_groups_and_empty_responses():
    """A response without tokens is no member of its group."""
    where = WHERE.at[0, 2].set(False)
    actual = rlx.dr_grpo(LOGPROBS, LOGPROBS, REWARDS, where=where, reduce=None)[0]
    expected = -(REWARDS[0, :2] - REWARDS[0, :2].mean())
    np.testing.assert_allclose(actual[:2, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(actual[2], 0)


def test_samples_have_values_for_every_recipe():
    for name in recipes.ENTRIES:
        assert set(samples.array_names(name)) == set(catalog.lookup(name).needs)

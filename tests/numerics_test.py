"""Masked numerics: masked equals removed, in value and gradient; nothing of nothing is 0; shards agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import numerics

X = np.array([3.0, -1.0, 2.5, 7.0, 0.5])
WHERE = np.array([True, False, True, True, False])
DIRTY = np.where(WHERE, X, np.nan)

REDUCTIONS = {
    "sum": (numerics.sum, np.sum),
    "mean": (numerics.mean, np.mean),
    "variance": (numerics.variance, np.var),
    "std": (numerics.std, np.std),
    "logsumexp": (numerics.logsumexp, lambda x: np.log(np.exp(x).sum())),
    "quantile": (lambda x, where=None: numerics.quantile(x, 0.3, where=where), lambda x: np.quantile(x, 0.3)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_masked_equals_removed(name):
    ours, theirs = REDUCTIONS[name]
    np.testing.assert_allclose(ours(jnp.asarray(DIRTY), where=WHERE), theirs(X[WHERE]), rtol=1e-6)
    gradient = jax.grad(lambda x: ours(x, where=WHERE))(jnp.asarray(DIRTY))
    removed = jax.grad(ours)(jnp.asarray(X[WHERE]))
    np.testing.assert_allclose(gradient[WHERE], removed, rtol=1e-5)
    np.testing.assert_array_equal(gradient[~WHERE], 0)


@pytest.mark.parametrize("name", ["sum", "mean", "variance", "std", "quantile"])
def test_nothing_is_zero_with_zero_gradient(name):
    ours = REDUCTIONS[name][0]
    value, gradient = jax.value_and_grad(lambda x: ours(x, where=np.zeros(5, bool)))(jnp.asarray(DIRTY))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", ["sum", "mean", "variance", "std", "logsumexp"])
def test_an_unmasked_nan_shows(name):
    assert np.isnan(REDUCTIONS[name][0](jnp.asarray(DIRTY)))


def test_half_precision_accumulates_in_float32():
    assert numerics.sum(jnp.ones(1000, jnp.bfloat16)) == 1000
    assert numerics.mean(jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32


def test_softmax_of_masked_and_impossible_entries():
    x = jnp.array([1.0, -jnp.inf, 2.0, jnp.nan])
    where = jnp.array([True, True, True, False])
    np.testing.assert_allclose(numerics.softmax(x, where=where), [0.26894143, 0, 0.7310586, 0], rtol=1e-6)
    assert np.isfinite(jax.jacobian(lambda x: numerics.softmax(x, where=where))(x)).all()
    nothing = numerics.softmax(x, where=jnp.zeros(4, bool))
    np.testing.assert_array_equal(nothing, 0)


def test_suffix_logsumexp_matches_its_definition_and_is_stable():
    x = np.array([500.0, -300.0, 2.0, 2.0, -1.0])
    expected = [np.logaddexp.reduce(x[k:]) for k in range(5)]
    np.testing.assert_allclose(numerics.suffix_logsumexp(jnp.asarray(x)), expected, rtol=1e-6)
    jacobian = jax.jacobian(numerics.suffix_logsumexp)(jnp.asarray(x))
    np.testing.assert_allclose(jacobian[2], np.r_[0, 0, np.exp(x[2:] - expected[2])], rtol=1e-5)


def test_top_k_is_exact_under_ties_and_masks():
    keys = jnp.array([[2.0, 2.0, -jnp.inf], [2.0, jnp.nan, 1.0]])
    where = jnp.array([[True, True, True], [True, False, True]])
    for k, expected in [(0, []), (2, [0, 1]), (4, [0, 1, 3, 5]), (5, [0, 1, 2, 3, 5]), (9, [0, 1, 2, 3, 5])]:
        assert list(np.flatnonzero(numerics.top_k_mask(keys, k, where=where))) == expected


def test_whiten_has_zero_mean_and_unit_variance():
    white = numerics.whiten(jnp.asarray(DIRTY), where=WHERE)
    np.testing.assert_allclose([white[WHERE].mean(), white[WHERE].std(ddof=1)], [0, 1], atol=1e-6)
    np.testing.assert_array_equal(white[~WHERE], 0)


@pytest.mark.parametrize("name", ["sum", "mean", "variance", "std", "quantile", "whiten", "top_k"])
def test_four_shards_agree_with_one(name):
    functions = {
        "whiten": numerics.whiten,
        "top_k": lambda x, where, axis_name=None: numerics.top_k_mask(x, 3, where=where, axis_name=axis_name),
        "quantile": lambda x, where, axis_name=None: numerics.quantile(x, 0.3, where=where, axis_name=axis_name),
    }
    function = functions.get(name) or REDUCTIONS[name][0]
    x = np.random.default_rng(0).integers(0, 4, (8, 3)).astype(np.float32)
    where = np.random.default_rng(1).random((8, 3)) < 0.6
    whole = np.asarray(function(jnp.asarray(x), where=where))
    shards = jax.pmap(lambda x, where: function(x, where=where, axis_name="i"), axis_name="i")(
        x.reshape(4, 2, 3), where.reshape(4, 2, 3)
    )
    shards = np.asarray(shards)
    expected = whole if whole.ndim else np.full(4, whole)
    np.testing.assert_allclose(shards.reshape(expected.shape), expected, rtol=1e-6, atol=1e-6)


def test_top_k_survives_infinities_zeros_of_both_signs_and_nan():
    keys = jnp.array([-jnp.inf, 0.0, -0.0, jnp.nan, jnp.inf, 1.0])
    taken = [np.flatnonzero(numerics.top_k_mask(keys, k)).tolist() for k in range(7)]
    order = [4, 5, 1, 2, 0, 3]
    assert taken == [sorted(order[:k]) for k in range(7)]


def test_top_k_gathers_nothing():
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(jax.sharding.AxisType.Auto,))
    call = jax.shard_map(
        lambda x: numerics.top_k_mask(x, 3, axis_name="data"),
        mesh=mesh,
        in_specs=jax.P("data"),
        out_specs=jax.P("data"),
    )
    keys = jnp.asarray(np.random.default_rng(0).integers(0, 4, 16), jnp.float32)
    np.testing.assert_array_equal(jax.jit(call)(keys), numerics.top_k_mask(keys, 3))
    assert "all-gather" not in jax.jit(call).lower(keys).compile().as_text()

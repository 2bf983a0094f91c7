"""The chunked body against the naive oracle, in float64: every statistic, every option, ragged chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx_kernels import core, reference, xla

N, D, V = 7, 5, 11


def inputs(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x, w, bias = rng.normal(size=(N, D)), rng.normal(size=(D, V)), rng.normal(size=V)
    targets = rng.integers(0, V, N).astype(np.int32)
    return (*(jnp.asarray(a, dtype) for a in (x, w, bias)), jnp.asarray(targets))


def weights(names):
    """A different cotangent for each row and statistic."""
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=N)) for name in names}


def chunked(x, w, bias, targets, **options):
    return xla.linear_statistics(x, w, bias, targets, xla.Options(**options))


def value_and_gradient(function, names, *arrays):
    cotangents = weights(names)

    def loss(*arrays):
        out = function(*arrays)
        return sum((cotangents[name] * out[name]).sum() for name in names), out

    (_, out), gradients = jax.value_and_grad(loss, argnums=tuple(range(len(arrays))), has_aux=True)(*arrays)
    return out, gradients


def assert_trees_close(got, want, atol):
    jax.tree.map(lambda g, r: np.testing.assert_allclose(g, r, atol=atol, rtol=atol), got, want)


@pytest.mark.parametrize("names", [*((name,) for name in core.STATISTICS), core.STATISTICS])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "softcap": 3.0}])
def test_equals_reference(names, options):
    with jax.enable_x64(True):
        x, w, bias, targets = inputs()
        got = value_and_gradient(
            lambda x, w, b: chunked(x, w, b, targets, statistics=names, rows=3, **options), names, x, w, bias
        )
        want = value_and_gradient(
            lambda x, w, b: reference.linear_statistics(x, w, b, targets, names, **options), names, x, w, bias
        )
        assert_trees_close(got, want, 1e-12)


@pytest.mark.parametrize("rows", [1, 4, 7, 64])
def test_chunk_size_changes_nothing(rows):
    with jax.enable_x64(True):
        x, w, _, targets = inputs()
        names = ("logp", "entropy")
        want = value_and_gradient(lambda x, w: reference.linear_statistics(x, w, None, targets, names), names, x, w)
        got = value_and_gradient(lambda x, w: chunked(x, w, None, targets, statistics=names, rows=rows), names, x, w)
        assert_trees_close(got, want, 1e-12)


def test_impossible_tokens_are_exact():
    """A bias of -inf removes tokens: the same as leaving their columns out, gradients included."""
    with jax.enable_x64(True):
        x, w, bias, targets = inputs()
        keep, names = np.array([0, 2, 3, 5, 8]), core.STATISTICS
        targets = targets % len(keep)
        masked = jnp.full(V, -jnp.inf).at[keep].set(bias[keep])
        got, (gx, gw) = value_and_gradient(
            lambda x, w: chunked(x, w, masked, keep[targets], statistics=names, rows=4), names, x, w
        )
        want, (rx, rw) = value_and_gradient(
            lambda x, w: reference.linear_statistics(x, w, bias[keep], targets, names), names, x, w[:, keep]
        )
        assert_trees_close((got, gx, gw[:, keep]), (want, rx, rw), 1e-12)
        assert not np.delete(np.asarray(gw), keep, axis=1).any()


def test_a_row_without_possible_tokens_is_defined():
    x, w, _, targets = inputs(np.float32)
    names = core.STATISTICS
    bias = jnp.full(V, -jnp.inf)
    out, gradients = value_and_gradient(lambda x, w: chunked(x, w, bias, targets, statistics=names), names, x, w)
    for name in names:
        expected = -np.inf if name in ("logp", "lse", "max_logp") else 0
        np.testing.assert_array_equal(out[name], expected)
    assert not any(np.asarray(g).any() for g in gradients)


def test_nan_and_bad_targets_stay_visible():
    x, w, _, targets = inputs(np.float32)
    x, targets = x.at[0, 0].set(jnp.nan), targets.at[1].set(V).at[2].set(-1)
    out = chunked(x, w, None, targets, statistics=("logp", "entropy"))
    np.testing.assert_array_equal(np.isnan(out["logp"]), np.arange(N) < 3)
    np.testing.assert_array_equal(np.isnan(out["entropy"]), np.arange(N) < 1)


def test_common_offset_costs_no_precision():
    """lse - mean of logits near 1000 would lose 5e-5; the shifted sums lose what the rounding of the logits lost."""
    z = np.round(np.random.default_rng(0).normal(size=(N, 64)) * 64) / 64  # exact in float32 at 1024
    for offset in (0.0, 1024.0):
        sums = core.sums(jnp.asarray(z + offset, jnp.float32), ("entropy",))
        entropy = core.finalise(sums, jnp.zeros(N), ("entropy",))["entropy"]
        with jax.enable_x64(True):
            want = reference.statistics(jnp.asarray(z), jnp.zeros(N, jnp.int32), ("entropy",))["entropy"]
        np.testing.assert_allclose(entropy, want, atol=2e-6)


def test_half_precision_inputs_keep_float32_statistics():
    x, w, _, targets = inputs(jnp.bfloat16)
    names = ("logp", "entropy")
    (out, (gx, gw)) = value_and_gradient(
        lambda x, w: chunked(x, w, None, targets, statistics=names, rows=2), names, x, w
    )
    with jax.enable_x64(True):
        want, (rx, rw) = value_and_gradient(
            lambda x, w: reference.linear_statistics(x, w, None, targets, names),
            names, x.astype(jnp.float64), w.astype(jnp.float64),
        )  # fmt: skip
    assert out["logp"].dtype == jnp.float32 and gw.dtype == jnp.bfloat16
    assert_trees_close(out, want, 2e-6)
    for got, exact in ((gx, rx), (gw, rw)):  # bfloat16 rounds the result and the gradient of the logits: 2^-8
        got, exact = np.asarray(got, np.float64), np.asarray(exact)
        assert np.linalg.norm(got - exact) <= 2**-8 * np.linalg.norm(exact)


def test_gradient_of_logits_sums_to_zero():
    """logp, entropy, variance, max_logp and renyi2 do not see a common offset of the logits."""
    with jax.enable_x64(True):
        z = jnp.asarray(np.random.default_rng(0).normal(size=(N, V)))
        names = ("logp", "entropy", "variance", "max_logp", "renyi2")
        sums = core.sums(z, names)
        dz = core.dlogits(z, jnp.zeros(N, jnp.int32), sums, core.coefficients(sums, weights(names)))
        np.testing.assert_allclose(dz.sum(-1), 0, atol=1e-13)


def test_merge_equals_whole():
    with jax.enable_x64(True):
        z = jnp.asarray(np.random.default_rng(0).normal(size=(N, V)) * 5).at[0, :4].set(-jnp.inf)
        names = core.STATISTICS
        right = core.sums(z[:, 4:], names)
        merged = core.merge(core.sums(z[:, :4], names), right._replace(top=right.top + 4))
        assert_trees_close(merged, core.sums(z, names), 1e-12)


def test_logp_is_never_positive():
    x, w, _, _ = inputs(np.float32)
    targets = jnp.argmax(x @ (30 * w), -1)
    assert (chunked(x, 30 * w, None, targets, statistics=("logp",))["logp"] <= 0).all()

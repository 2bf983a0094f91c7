"""The public statistics: dispatch, masks, messages, and the mesh."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from rlx import ops
from rlx.errors import UserError
from rlx.ops.statistics import TokenStatistics

N, T, D, V = 4, 3, 6, 8
ALL = tuple(name for name in TokenStatistics._fields if name != "kl")


def inputs(dtype=np.float64):
    rng = np.random.default_rng(0)
    hidden, unembedding = rng.normal(size=(N, T, D)), rng.normal(size=(D, V))
    targets = rng.integers(0, V, (N, T)).astype(np.int32)
    return jnp.asarray(hidden, dtype), jnp.asarray(unembedding, dtype), jnp.asarray(targets)


def total(out):
    """A sum with a different weight for every statistic and position."""
    rng = np.random.default_rng(1)
    return sum((rng.normal(size=(N, T)) * value).sum() for value in out if value is not None)


def assert_same(got, want, atol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=atol), got, want)


def test_logits_and_hidden_agree_with_the_reference():
    with jax.enable_x64(True):
        hidden, unembedding, targets = inputs()
        keywords = {"statistics": ALL, "temperature": 0.8, "softcap": 5.0}

        def loss(function, implementation):
            def call(hidden, unembedding):
                if function is ops.token_statistics:
                    args = (hidden @ unembedding, targets)
                else:
                    args = (hidden, unembedding, targets)
                return total(function(*args, implementation=implementation, **keywords))

            return jax.value_and_grad(call, (0, 1))(hidden, unembedding)

        want = loss(ops.token_statistics, "reference")
        for function in (ops.token_statistics, ops.linear_token_statistics):
            for implementation in (None, "xla", "reference"):
                assert_same(loss(function, implementation), want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_masked_positions_are_absent(bad, implementation):
    hidden, unembedding, targets = inputs(np.float32)
    where = jnp.arange(T) < 2
    where = jnp.broadcast_to(where, (N, T))
    hidden, targets = hidden.at[:, 2].set(bad), targets.at[:, 2].set(-100)

    def loss(hidden, unembedding, targets, where=None):
        out = ops.linear_token_statistics(
            hidden, unembedding, targets, where=where, statistics=ALL, implementation=implementation
        )
        return sum(value.sum() for value in out if value is not None), out

    gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)
    (got, out), (gh, gw) = gradient(hidden, unembedding, targets, where)
    (want, _), (rh, rw) = gradient(hidden[:, :2], unembedding, targets[:, :2])
    assert_same((got, gh[:, :2], gw), (want, rh, rw), 1e-5)
    assert not np.asarray(gh[:, 2]).any()
    assert not any(np.asarray(value[:, 2]).any() for value in out if value is not None)


def test_masked_logits_are_absent():
    hidden, unembedding, targets = inputs(np.float32)
    logits = (hidden @ unembedding).at[:, 0].set(jnp.nan)
    where = jnp.broadcast_to(jnp.arange(T) > 0, (N, T))
    keywords = {"where": where, "statistics": (*ALL, "kl")}
    value, gradient = jax.value_and_grad(
        lambda z: total(ops.token_statistics(z, targets, other=z[..., ::-1], **keywords))
    )(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all() and not np.asarray(gradient[:, 0]).any()


def test_kl_is_against_other_and_vanishes_at_equality():
    hidden, unembedding, targets = inputs(np.float32)
    logits = hidden @ unembedding
    other = jnp.flip(logits, -1)
    kl = ops.token_statistics(logits, targets, statistics=("kl",), other=other).kl
    p, q = jax.nn.softmax(other), jax.nn.softmax(logits)
    np.testing.assert_allclose(kl, (p * jnp.log(p / q)).sum(-1), rtol=1e-5)
    same = jax.value_and_grad(lambda z: ops.token_statistics(z, targets, statistics=("kl",), other=logits).kl.sum())(
        logits
    )
    np.testing.assert_allclose(same[0], 0, atol=1e-6)
    np.testing.assert_allclose(same[1], 0, atol=1e-6)


def test_traced_temperature_is_differentiable():
    with jax.enable_x64(True):
        hidden, unembedding, targets = inputs()

        def linear(t):
            return total(ops.linear_token_statistics(hidden, unembedding, targets, temperature=t))

        def plain(t):
            keywords = {"temperature": t, "statistics": ("logp", "entropy"), "implementation": "reference"}
            return total(ops.token_statistics(hidden @ unembedding, targets, **keywords))

        t = jnp.asarray(0.7)
        assert_same(jax.value_and_grad(linear)(t), jax.value_and_grad(plain)(t))
        with pytest.raises(UserError, match="Python number"):
            ops.linear_token_statistics(hidden, unembedding, targets, temperature=t, softcap=3.0)


def test_messages_name_the_culprit():
    hidden, unembedding, targets = inputs(np.float32)
    call = ops.linear_token_statistics
    with pytest.raises(UserError, match="unknown statistic 'entrpy'. Did you mean 'entropy'"):
        call(hidden, unembedding, targets, statistics=("entrpy",))
    with pytest.raises(UserError, match="unknown implementation 'xal'. Did you mean 'xla'"):
        call(hidden, unembedding, targets, implementation="xal")
    with pytest.raises(UserError, match="'kl' needs the logits of another policy"):
        call(hidden, unembedding, targets, statistics=("kl",))
    with pytest.raises(UserError, match=re.escape("targets (3,) must have the leading shape (4, 3) of hidden")):
        call(hidden, unembedding, targets[0])
    with pytest.raises(UserError, match="differ in D"):
        call(hidden, unembedding.T, targets)


MESHES = [{"data": 4}, {"fsdp": 4}, {"data": 2, "fsdp": 2}, {"model": 4}, {"data": 2, "model": 2}]


def make_mesh(sizes):
    count = np.prod(list(sizes.values()))
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), types, devices=jax.devices()[:count])


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_mesh_equals_single_device(sizes):
    with jax.enable_x64(True):
        hidden, unembedding, targets = inputs()
        bias = jnp.linspace(-1, 1, V).at[3].set(-jnp.inf)

        def loss(hidden, unembedding, bias, mesh=None):
            out = ops.linear_token_statistics(
                hidden, unembedding, targets % 3, bias=bias, statistics=ALL, mesh=mesh, rows=2
            )
            return total(out), out

        def run(mesh):
            call = jax.value_and_grad(lambda *args: loss(*args, mesh=mesh), (0, 1, 2), has_aux=True)
            return jax.jit(call)(hidden, unembedding, bias)

        assert_same(run(make_mesh(sizes)), run(None), 1e-10)


def test_uneven_shapes_fall_back_to_the_whole():
    with jax.enable_x64(True):
        hidden, unembedding, targets = inputs()
        hidden, unembedding, targets = hidden[:3], unembedding[:, :7], targets[:3] % 7
        mesh = make_mesh({"data": 2, "model": 2})
        got = jax.jit(lambda: ops.linear_token_statistics(hidden, unembedding, targets, mesh=mesh))()
        assert_same(got, ops.linear_token_statistics(hidden, unembedding, targets))


def test_data_parallel_head_gathers_no_tokens_and_reduces_once():
    hidden, unembedding, targets = inputs(np.float32)
    mesh = make_mesh({"data": 4})
    sharded = jax.NamedSharding(mesh, jax.P("data"))
    hidden, targets = jax.device_put((hidden, targets), sharded)
    unembedding = jax.device_put(unembedding, jax.NamedSharding(mesh, jax.P()))

    def loss(unembedding, hidden):
        return ops.linear_token_statistics(hidden, unembedding, targets, mesh=mesh, rows=2).logp.sum()

    text = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(unembedding, hidden).compile().as_text()
    assert len(re.findall(r"all-gather(?:-start)?\(", text)) == 0
    assert len(re.findall(r"all-reduce(?:-start)?\(", text)) <= 2  # the loss and the gradient of the unembedding


def test_inside_a_users_shard_map():
    """Without a mesh argument the operation is local, and usable under shard_map with checked variance."""
    with jax.enable_x64(True):
        hidden, unembedding, targets = inputs()
        mesh = make_mesh({"data": 4})

        def loss(hidden, unembedding, targets):
            out = ops.linear_token_statistics(hidden, unembedding, targets, rows=2)
            return jax.lax.psum(out.logp.sum() + out.entropy.sum(), "data")

        sharded = jax.shard_map(loss, mesh=mesh, in_specs=(jax.P("data"), jax.P(), jax.P("data")), out_specs=jax.P())

        def whole(hidden, unembedding, targets):
            out = ops.linear_token_statistics(hidden, unembedding, targets)
            return out.logp.sum() + out.entropy.sum()

        got, want = (jax.jit(jax.value_and_grad(f, (0, 1)))(hidden, unembedding, targets) for f in (sharded, whole))
        assert_same(got, want)

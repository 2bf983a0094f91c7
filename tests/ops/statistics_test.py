"""The public statistics: dispatch, masks, messages, and the mesh."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from rlx import ops
from rlx.errors import UserError
from rlx.ops.statistics import PAIRED, TokenStatistics

N, T, D, V = 4, 3, 6, 8
ALL = TokenStatistics._fields
SINGLE = tuple(name for name in ALL if name not in (*PAIRED, "covariance"))


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


def extras(dtype=np.float64):
    """Numbers of the tokens, and another policy as logits and as hidden states."""
    rng = np.random.default_rng(2)
    hidden, unembedding, bias = rng.normal(size=(N, T, D)), rng.normal(size=(D, V)), rng.normal(size=V)
    second = tuple(jnp.asarray(x, dtype) for x in (hidden, unembedding, bias))
    return jnp.asarray(rng.normal(size=(N, T, V)), dtype), second


def test_logits_and_hidden_agree_with_the_reference():
    with jax.enable_x64(True):
        hidden, unembedding, targets = inputs()
        y, second = extras()
        other = second[0] @ second[1] + second[2]
        options = {"temperature": 0.8, "softcap": 5.0, "top_p": 0.6, "top_k": 3, "tsallis_order": 1.5}

        def loss(function, implementation, *, as_logits=True):
            def call(hidden, unembedding, y, second):
                own = (hidden @ unembedding,) if function is ops.token_statistics else (hidden, unembedding)
                rival = second[0] @ second[1] + second[2] if as_logits else second
                arrays = {"y": y, "other": rival, "statistics": ALL, "implementation": implementation}
                return total(function(*own, targets, **arrays, **options))

            return jax.jit(jax.value_and_grad(call, (0, 1, 2, 3)))(hidden, unembedding, y, second)

        assert other.shape == (N, T, V)
        want = loss(ops.token_statistics, "reference")
        for implementation in (None, "xla"):
            assert_same(loss(ops.token_statistics, implementation), want)
            assert_same(loss(ops.linear_token_statistics, implementation, as_logits=False), want)
        assert_same(loss(ops.linear_token_statistics, "reference", as_logits=False), want)


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_masked_positions_are_absent(implementation):
    hidden, unembedding, targets = inputs(np.float32)
    where = jnp.arange(T) < 2
    where = jnp.broadcast_to(where, (N, T))
    bad = jnp.asarray([np.nan, np.inf, -np.inf, np.nan])[:, None]
    hidden, targets = hidden.at[:, 2].set(bad), targets.at[:, 2].set(-100)

    def loss(hidden, unembedding, targets, where=None):
        out = ops.linear_token_statistics(
            hidden, unembedding, targets, where=where, statistics=SINGLE, implementation=implementation
        )
        return sum(value.sum() for value in out if value is not None), out

    gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)
    (got, out), (gh, gw) = gradient(hidden, unembedding, targets, where)
    (want, _), (rh, rw) = gradient(hidden[:, :2], unembedding, targets[:, :2])
    assert_same((got, gh[:, :2], gw), (want, rh, rw), 1e-5)
    assert not np.asarray(gh[:, 2]).any()
    assert not any(np.asarray(value[:, 2]).any() for value in out if value is not None)


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_masked_logits_are_absent(implementation):
    hidden, unembedding, targets = inputs(np.float32)
    logits = (hidden @ unembedding).at[:, 0].set(jnp.nan)
    where = jnp.broadcast_to(jnp.arange(T) > 0, (N, T))
    keywords = {"where": where, "statistics": ALL, "y": extras(np.float32)[0], "implementation": implementation}

    def loss(z, other):
        return total(ops.token_statistics(z, targets, other=other, **keywords))

    value, gradients = jax.value_and_grad(loss, (0, 1))(logits, logits[..., ::-1])
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.isfinite(gradient).all() and not np.asarray(gradient[:, 0]).any()


def test_divergences_have_their_direction_and_vanish_at_equality():
    hidden, unembedding, targets = inputs(np.float32)
    logits = hidden @ unembedding
    other = jnp.flip(logits, -1)
    found = ops.token_statistics(logits, targets, statistics=PAIRED, other=other)
    p, q = jax.nn.softmax(logits), jax.nn.softmax(other)
    m = (p + q) / 2
    np.testing.assert_allclose(found.kl, (q * jnp.log(q / p)).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(found.reverse_kl, (p * jnp.log(p / q)).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(found.js, ((p * jnp.log(p / m) + q * jnp.log(q / m)) / 2).sum(-1), rtol=1e-4)
    for name in PAIRED:

        def loss(z, name=name):
            return getattr(ops.token_statistics(z, targets, statistics=(name,), other=logits), name).sum()

        for part in jax.value_and_grad(loss)(logits):
            np.testing.assert_allclose(part, 0, atol=1e-5)


def test_entropy_change_is_that_of_a_policy_gradient_step():
    """One token, advantage and step size 1e-6, on the logits."""
    with jax.enable_x64(True):
        logits, target, step = inputs()[0][0, :1], jnp.array([2]), 1e-6
        names = ("logp", "entropy", "entropy_change")
        before = ops.token_statistics(logits, target, statistics=names)
        gradient = jax.grad(lambda z: ops.token_statistics(z, target).logp.sum())(logits)
        after = ops.token_statistics(logits + step * gradient, target, statistics=names)
        np.testing.assert_allclose((after.entropy - before.entropy) / step, before.entropy_change, rtol=1e-5)


def test_temperature_may_differ_by_token():
    with jax.enable_x64(True):
        hidden, unembedding, targets = inputs()
        bias = jnp.linspace(-1, 1, V)
        temperature = jnp.linspace(0.5, 2, N * T).reshape(N, T)

        def linear(t, **options):
            return total(ops.linear_token_statistics(hidden, unembedding, targets, temperature=t, **options))

        def plain(t, bias=0.0, softcap=None):
            z = hidden @ unembedding + bias
            z = z if softcap is None else softcap * jnp.tanh(z / softcap)
            names = {"statistics": ("logp", "entropy"), "implementation": "reference"}
            return total(ops.token_statistics(z / jnp.broadcast_to(t, (N, T))[..., None], targets, **names))

        for t in (temperature, jnp.asarray(0.7)):
            for options in ({}, {"bias": bias}, {"softcap": 3.0}):
                got, want = (jax.value_and_grad(f)(t, **options) for f in (linear, plain))
                assert_same(got, want)


def test_messages_name_the_culprit():
    hidden, unembedding, targets = inputs(np.float32)
    call = ops.linear_token_statistics
    with pytest.raises(UserError, match="unknown statistic 'entrpy'. Did you mean 'entropy'"):
        call(hidden, unembedding, targets, statistics=("entrpy",))
    with pytest.raises(UserError, match="unknown implementation 'xal'. Did you mean 'xla'"):
        call(hidden, unembedding, targets, implementation="xal")
    with pytest.raises(UserError, match="'kl' needs another policy: other="):
        call(hidden, unembedding, targets, statistics=("kl",))
    with pytest.raises(UserError, match="'covariance' needs a number for every token: y="):
        call(hidden, unembedding, targets, statistics=("covariance",))
    with pytest.raises(UserError, match=re.escape("y (3,) must be (8,) or (4, 3, 8)")):
        call(hidden, unembedding, targets, statistics=("covariance",), y=jnp.zeros(3))
    with pytest.raises(UserError, match="other has a vocabulary of 5 tokens, the policy one of 8"):
        call(hidden, unembedding, targets, statistics=("kl",), other=jnp.zeros((N, T, 5)))
    with pytest.raises(UserError, match=re.escape("targets (3,) must have the leading shape (4, 3) of hidden")):
        call(hidden, unembedding, targets[0])
    with pytest.raises(UserError, match="differ in D"):
        call(hidden, unembedding.T, targets)
    for options, message in (
        ({"top_p": 1.5}, r"must be in \(0, 1\], got 1.5"),
        ({"top_k": 0}, "at least 1, got 0"),
        ({"tsallis_order": 1}, "not 1"),
        ({"top_p_rule": "strct"}, "Did you mean 'strict'"),
    ):
        with pytest.raises(UserError, match=message):
            call(hidden, unembedding, targets, **options)


def test_a_kernel_that_is_asked_for_says_why_it_declines():
    hidden, unembedding, targets = inputs(np.float32)
    with pytest.raises(NotImplementedError, match="sweep a row once: no top_p_entropy"):
        ops.linear_token_statistics(hidden, unembedding, targets, statistics=("top_p_entropy",), implementation="tpu")


MESHES = [{"data": 8}, {"fsdp": 4}, {"data": 2, "fsdp": 2}, {"model": 4}, {"data": 2, "model": 2}, {"model": 8}]


def make_mesh(sizes):
    count = np.prod(list(sizes.values()))
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), types, devices=jax.devices()[:count])


def on_a_mesh(mesh, given, *, dtype=np.float64, y_of="rows", statistics=ALL, rows=2, other=True):
    """Every statistic of 8 rows and all gradients."""
    rng = np.random.default_rng(3)
    n, bias = 8, jnp.linspace(-1, 1, V, dtype=dtype)
    x, w, x2, w2 = (jnp.asarray(rng.normal(size=s), dtype) for s in ((n, D), (D, V)) * 2)
    y = jnp.asarray(rng.normal(size=(n, V) if y_of == "rows" else V), dtype)
    targets = jnp.asarray(rng.integers(0, V, n), jnp.int32)
    weights = {name: rng.normal(size=n) for name in ALL}

    def loss(x, w, bias, y, x2, w2):
        options = {"statistics": statistics, "mesh": mesh, "rows": rows, "top_p": 0.6, "top_k": 3}
        if given == "logits":
            options |= {"y": y, "other": x2 @ w2} if other else {}
            out = ops.token_statistics(x @ w + bias, targets, **options)
        else:
            options |= {"y": y, "other": (x2, w2)} if other else {}
            out = ops.linear_token_statistics(x, w, targets, bias=bias, **options)
        found = {name: value for name, value in out._asdict().items() if value is not None}
        return sum((weights[name] * value).sum() for name, value in found.items()).astype(x.dtype), found

    return jax.jit(jax.value_and_grad(loss, range(6), has_aux=True))(x, w, bias, y, x2, w2)


@pytest.mark.parametrize("given", ["logits", "hidden"])
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_mesh_equals_single_device(sizes, given):
    y_of = "all" if "model" in sizes else "rows"
    with jax.enable_x64(True):
        assert_same(*(on_a_mesh(mesh, given, y_of=y_of) for mesh in (make_mesh(sizes), None)), 1e-10)


@pytest.mark.parametrize("sizes", [{"model": 8}, {"data": 8}], ids=str)
def test_mesh_in_float32_and_by_the_default_body(sizes):
    options = {"dtype": np.float32, "statistics": SINGLE[:-1], "rows": None, "other": False}
    got, want = (jax.tree.leaves(on_a_mesh(mesh, "hidden", **options)) for mesh in (make_mesh(sizes), None))
    for a, b in zip(got, want, strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


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


@pytest.mark.parametrize("function", ["logits", "hidden"])
def test_vocabulary_split_over_an_axis_of_a_users_shard_map(function):
    with jax.enable_x64(True):
        hidden, unembedding, targets = inputs()
        mesh = make_mesh({"data": 2, "model": 4})
        names = {"statistics": ("logp", "entropy", "top_p_entropy")}

        def loss(hidden, unembedding, targets, axis_name=None):
            if function == "logits":
                out = ops.token_statistics(hidden @ unembedding, targets, axis_name=axis_name, **names)
            else:
                out = ops.linear_token_statistics(hidden, unembedding, targets, axis_name=axis_name, **names)
            value = out.logp.sum() + 2 * out.entropy.sum() + out.top_p_entropy.sum()
            return value if axis_name is None else jax.lax.psum(value, "data")

        specs = (jax.P("data"), jax.P(None, "model"), jax.P("data"))
        sharded = jax.shard_map(
            functools.partial(loss, axis_name="model"), mesh=mesh, in_specs=specs, out_specs=jax.P()
        )
        got, want = (jax.jit(jax.value_and_grad(f, (0, 1)))(hidden, unembedding, targets) for f in (sharded, loss))
        assert_same(got, want)

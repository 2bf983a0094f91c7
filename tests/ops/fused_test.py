"""The loss with its gradient made on the way forward is the plain one, and needs fewer operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from rlx import ops
from rlx.errors import UserError

N, T, D, V = 4, 6, 8, 24


def inputs(dtype=np.float64):
    rng = np.random.default_rng(0)
    hidden, w, advantages = (jnp.asarray(rng.normal(size=s), dtype) for s in ((N, T, D), (D, V), (N, T)))
    return hidden, w, advantages, jnp.asarray(rng.integers(0, V, (N, T)), jnp.int32)


def loss(found, advantages):
    return -jnp.exp(0.1 * found.logp) * advantages - 0.01 * found.entropy**2


def fused(hidden, w, advantages, targets, **options):
    return ops.fused_linear_token_loss(loss, hidden, w, targets, advantages, **options)


def plain(hidden, w, advantages, targets, *, where=None, **options):
    found = ops.linear_token_statistics(hidden, w, targets, where=where, **options)
    values = loss(found, advantages)
    return (values if where is None else jnp.where(where, values, 0)).sum()


def gradients(function, *args, **options):
    return jax.jit(jax.value_and_grad(lambda *a: function(*a, args[-1], **options), (0, 1, 2)))(*args[:-1])


def assert_same(got, want, atol=1e-11):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=atol), got, want)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "softcap": 3.0}], ids=str)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [5, None])
def test_equals_the_plain_loss(options, masked, rows):
    with jax.enable_x64(True):
        args = inputs()
        if masked:
            where = jnp.asarray(np.random.default_rng(1).random((N, T)) < 0.4)
            options = options | {"where": where}
            args = (args[0].at[~where].set(jnp.nan), *args[1:])
        assert_same(gradients(fused, *args, rows=rows, **options), gradients(plain, *args, **options))


@pytest.mark.parametrize("sizes", [{"data": 4}, {"model": 4}, {"data": 2, "model": 2}], ids=str)
def test_on_a_mesh(sizes):
    with jax.enable_x64(True):
        args = inputs()
        where = jnp.asarray(np.random.default_rng(1).random((N, T)) < 0.7)
        devices = jax.devices()[: int(np.prod(list(sizes.values())))]
        types = (AxisType.Auto,) * len(sizes)
        mesh = jax.make_mesh(tuple(sizes.values()), tuple(sizes), types, devices=devices)
        got = gradients(fused, *args, mesh=mesh, rows=4, where=where)
        assert_same(got, gradients(plain, *args, where=where))


def test_takes_three_quarters_of_the_operations():
    hidden, w, advantages, targets = inputs(np.float32)
    wide = jnp.zeros((128, 1024), jnp.float32)
    hidden, advantages, targets = hidden[:1, :1], advantages[:1, :1], targets[:1, :1]
    hidden = jnp.tile(hidden, (64, 1, 16))
    advantages, targets = jnp.tile(advantages, (64, 1)), jnp.tile(targets, (64, 1))

    def products(function):
        text = jax.jit(jax.grad(lambda h, w: function(h, w, advantages, targets, rows=32), (0, 1)))
        return text.lower(hidden, wide).compile().as_text().count(" dot(")

    assert products(fused) == 3
    assert products(plain) == 4


def test_messages_name_the_culprit():
    hidden, w, advantages, targets = inputs(np.float32)
    with pytest.raises(UserError, match="operand 0 .* must begin with the shape"):
        fused(hidden, w, advantages[0], targets)
    with pytest.raises(UserError, match="no other policy"):
        fused(hidden, w, advantages, targets, statistics=("kl",))

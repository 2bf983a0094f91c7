"""The weight product is the plain product, in value and gradient, alone and under shard_map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from rlx.ops.product import weight_product


def arrays():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(8, 3))), jnp.asarray(rng.normal(size=(3, 5)))


def loss(x, w, product=weight_product):
    return (jnp.sin(product(x, w))).sum()


def test_equals_the_plain_product():
    with jax.enable_x64(True):
        x, w = arrays()
        got, want = (
            jax.jit(jax.value_and_grad(functools.partial(loss, product=product), (0, 1)))(x, w)
            for product in (weight_product, jnp.matmul)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), got, want)


def test_second_derivatives_exist():
    with jax.enable_x64(True):
        x, w = arrays()

        def curvature(w, product):
            return (jax.grad(loss, 1)(x, w, product) ** 2).sum()

        got, want = (jax.grad(curvature)(w, product) for product in (weight_product, jnp.matmul))
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_shared_weights_under_shard_map_collect_from_all_devices():
    with jax.enable_x64(True):
        x, w = arrays()
        mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=jax.devices()[:4])
        sharded = jax.shard_map(
            lambda x, w: jax.lax.psum(loss(x, w), "data"),
            mesh=mesh, in_specs=(jax.P("data"), jax.P()), out_specs=jax.P(),
        )  # fmt: skip
        got, want = (jax.jit(jax.value_and_grad(f, (0, 1)))(x, w) for f in (sharded, loss))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), got, want)

"""Packed rows equal separate ones: hidden states, loss and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import numerics, ops
from rlx.data.packing import pack
from rlx.errors import UserError
from rlx.models import packing
from rlx.train import sharding
from tests.models.transformer_test import build, shaken

B, K, L, R = 4, 3, 5, 8


def batch(seed=0):
    """Prompts padded on the left, responses on the right, one candidate wholly padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 19, (B, K, L + R)).astype(np.int32)
    left, right = rng.integers(0, L, (B, K, 1)), rng.integers(1, R + 1, (B, K, 1))
    steps = np.arange(L + R)
    valid = (steps >= left) & (steps < L + right)
    valid[2, 1] = False
    return tokens, valid


def mean_loss(logp, valid):
    where = valid[..., L:]
    return -numerics.sum(logp, where=where) / where.sum()


def unpacked(model, params, tokens, valid):
    hidden, unembedding = model.apply(params, *(x.reshape(-1, L + R) for x in (tokens, valid)))
    hidden = hidden.reshape(B, K, L + R, -1)
    found = ops.linear_token_statistics(ops.predicting(hidden, L), unembedding, tokens[..., L:])
    return mean_loss(found.logp, valid), jnp.where(valid[..., None], hidden, 0)


def packed_states(model, params, tokens, valid, groups=1, mesh=None, **options):
    """Hidden states go back to the layout of the batch, then through the vocabulary."""
    rows = pack(tokens, valid, groups=groups, **options)
    rows = rows if mesh is None else rows._replace(**sharding.put_batch(rows._asdict(), mesh))
    hidden, unembedding = model.packed(params, rows.tokens, rows.segments)
    hidden = packing.unpack(hidden, rows.index, groups)
    found = ops.linear_token_statistics(ops.predicting(hidden, L), unembedding, tokens[..., L:], mesh=mesh)
    return mean_loss(found.logp, valid), jnp.where(valid[..., None], hidden, 0)


def packed_numbers(model, params, tokens, valid, **options):
    """Packed rows go through the vocabulary, then their log-probabilities back to the layout of the batch."""
    rows = pack(tokens, valid, **options)
    hidden, unembedding = model.packed(params, rows.tokens, rows.segments)
    found = ops.linear_token_statistics(hidden, unembedding, ops.shift(rows.tokens, fill=0))
    logp = packing.unpack(ops.unshift(found.logp), rows.index[..., L:])
    states = packing.unpack(hidden, rows.index)
    return mean_loss(logp, valid), jnp.where(valid[..., None], states, 0)


def outputs(form, model, params, *given, **options):
    def loss(params):
        return form(model, params, *given, **options)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def assert_close(got, want, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, want)


@pytest.mark.parametrize("options", [{}, {"scan_layers": True, "remat": "full"}])
def test_equals_separate_rows(options):
    with jax.enable_x64(True):
        model = build(dtype="float64", **options)
        params = shaken(model)
        want = outputs(unpacked, model, params, *batch())
        for form in (packed_states, packed_numbers):
            assert_close(outputs(form, model, params, *batch(), capacity=20, rows=6), want, 1e-10)


def test_equals_separate_rows_in_float32():
    model = build()
    params = shaken(model)
    assert_close(*(outputs(form, model, params, *batch()) for form in (packed_states, unpacked)), 1e-5)


def test_each_shard_packs_its_own_rows():
    model, mesh = build(), sharding.make_mesh({"data": 4})
    params = shaken(model)
    got = outputs(packed_states, model, params, *batch(), groups=4, mesh=mesh)
    assert_close(got, outputs(unpacked, model, params, *batch()), 1e-5)


def test_unpacking_stays_on_the_device():
    mesh = sharding.make_mesh({"data": 4})
    rows = pack(*batch(), groups=4)
    given = sharding.put_batch({"x": rows.tokens[..., None] * np.ones(3, np.float32), "index": rows.index}, mesh)

    def loss(x, index):
        return (packing.unpack(x, index, 4) ** 2).sum()

    text = jax.jit(jax.grad(loss)).lower(*given.values()).compile().as_text()
    assert not [kind for kind in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if kind in text]


def test_parts_must_divide():
    with pytest.raises(UserError, match="3 packed rows and a batch of 4 do not both divide by groups=2"):
        packing.unpack(jnp.zeros((3, 5)), jnp.zeros((4, 5), int), 2)

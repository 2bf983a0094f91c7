"""Packed rows equal separate ones: hidden states, loss and gradients; the packer loses no token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import numerics, ops
from rlx.data.packing import first_fit, pack
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


def test_rows_hold_every_token_once_and_in_order():
    tokens, valid = batch()
    for options in ({}, {"capacity": 30, "max_segments": 2}, {"groups": 2, "rows": 12}, {"groups": 4}):
        rows = pack(tokens, valid, **options)
        groups = options.get("groups", 1)
        assert (rows.segments > 0).sum() == valid.sum() and rows.segments.max() <= options.get("max_segments", 12)
        got = packing.unpack(rows.tokens, rows.index, groups)
        np.testing.assert_array_equal(np.where(valid, got, 0), np.where(valid, tokens, 0))
        numbers = np.asarray(packing.unpack(rows.segments, rows.index, groups))
        assert (np.ptp(np.where(valid, numbers, numbers.max(-1, keepdims=True)), axis=-1) == 0).all()
        assert rows.fill == pytest.approx(valid.sum() / rows.tokens.size)


def test_segments_of_a_row_begin_where_the_one_before_ends():
    rows = pack(*batch(), capacity=40)
    for row in rows.segments:
        real = row[row > 0]
        assert (np.diff(real) >= 0).all() and (row[: len(real)] > 0).all()


def test_packs_as_few_rows_as_first_fit_decreasing_promises():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = rng.integers(0, 33, 60)
        places = first_fit(lengths, 32)
        best = -(-lengths.sum() // 32)  # no packing needs fewer
        assert places.rows.max() + 1 <= 11 / 9 * best + 1
        held = np.bincount(places.rows, lengths)
        assert held.max() <= 32
        np.testing.assert_array_equal(places, first_fit(lengths.tolist(), 32))


def test_number_of_rows_is_the_callers():
    tokens, valid = batch()
    assert pack(tokens, valid, rows=12).tokens.shape == (12, L + R)
    needed = len(pack(tokens, valid).tokens)
    assert needed < B * K and pack(tokens, valid, rows=needed).tokens.shape == (needed, L + R)
    assert len(pack(tokens, valid, multiple=5, groups=2).tokens) == 10
    with pytest.raises(UserError, match=f"rows={needed - 1} are too few: this batch needs {needed} rows of 13 tokens"):
        pack(tokens, valid, rows=needed - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 4}, "sequence . has .* tokens, a packed row holds 4: raise capacity"),
        ({"capacity": 0}, "capacity must be at least 1, not 0"),
        ({"max_segments": 0}, "max_segments must be at least 1"),
        ({"multiple": 0}, "multiple must be at least 1"),
        ({"groups": 3}, r"batch \(4\) must be a multiple of groups=3"),
        ({"groups": 2, "rows": 5}, r"rows \(5\) must be a multiple of groups=2"),
    ],
)
def test_messages(options, message):
    with pytest.raises(UserError, match=message):
        pack(*batch(), **options)


def test_shapes_are_checked():
    tokens, valid = batch()
    with pytest.raises(UserError, match=r"tokens .* and valid .* must have one shape"):
        pack(tokens, valid[:2])
    with pytest.raises(UserError, match="3 packed rows and a batch of 4 do not both divide by groups=2"):
        packing.unpack(jnp.zeros((3, 5)), jnp.zeros((4, 5), int), 2)

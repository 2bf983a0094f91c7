"""The packer loses no token, fills rows well, and does the same twice."""

import numpy as np
import pytest

from rlx.data.packing import first_fit, pack
from rlx.errors import UserError
from rlx.models import packing
from tests.models.packing_test import B, K, L, R, batch


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
    assert len(pack(tokens, valid, multiple=8, groups=2).tokens) == B * K  # not 16: more rows than sequences are waste
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

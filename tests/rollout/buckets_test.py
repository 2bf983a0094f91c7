"""Prompts of every length in a few shapes."""

import numpy as np
import pytest

from rlx.errors import UserError
from rlx.rollout.buckets import bucket, crop, lengths, pad_prompts


def test_lengths_double_up_to_the_limit():
    assert lengths(64) == (16, 32, 64)
    assert lengths(10) == (10,)


def test_rows_are_filled_up_with_nothing():
    tokens, valid = pad_prompts([[1], [2, 3], [4]], (4,), rows=(2, 4), pad_id=9)
    np.testing.assert_array_equal(tokens, [[9, 9, 9, 1], [9, 9, 2, 3], [9, 9, 9, 4], [9] * 4])
    np.testing.assert_array_equal(valid.sum(-1), [1, 2, 1, 0])


def test_a_crop_may_pad():
    tokens, valid = crop(np.array([[5, 6, 7]]), np.ones((1, 3), bool), (4, 8))
    np.testing.assert_array_equal(tokens, [[0, 5, 6, 7]])
    np.testing.assert_array_equal(valid, [[False, True, True, True]])


def test_what_does_not_fit_is_named():
    with pytest.raises(UserError, match="no bucket holds 9: the largest of 4, 8 is too small"):
        bucket(9, (8, 4))
    with pytest.raises(UserError, match="prompt 1 has no token"):
        pad_prompts([[1], []], (4,))

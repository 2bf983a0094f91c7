"""The length-controlled win rate: what length does to it, equal lengths, masks, errors."""

import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation.length_controlled import Weights

RNG = np.random.default_rng(0)
BASELINE, DIFFICULTY = RNG.integers(100, 900, 12), RNG.normal(size=12)
WEIGHTS = Weights(length=-2.0, difficulty=0.5, model=0.3)


def test_lengths_do_not_matter_but_for_the_raw_prediction():
    short, long = (
        rlx.alpaca_eval_length_controlled(BASELINE, BASELINE + x, DIFFICULTY, WEIGHTS) for x in (-DIFFICULTY * 9, 300)
    )
    assert short.win_rate == long.win_rate and (short.raw_predictions != long.raw_predictions).any()


def test_equal_lengths_have_no_spread():
    found = rlx.alpaca_eval_length_controlled(BASELINE, BASELINE, DIFFICULTY, WEIGHTS)
    np.testing.assert_array_equal(found.raw_predictions, found.predictions)


def test_masked_instructions_are_not_there():
    where = np.arange(12) < 7
    masked = rlx.alpaca_eval_length_controlled(BASELINE, BASELINE[::-1], DIFFICULTY, WEIGHTS, where=where)
    removed = rlx.alpaca_eval_length_controlled(BASELINE[:7], BASELINE[::-1][:7], DIFFICULTY[:7], WEIGHTS)
    assert masked.win_rate == removed.win_rate and masked.standard_error == removed.standard_error


def test_errors():
    with pytest.raises(errors.UserError, match="two or more entries"):
        rlx.alpaca_eval_length_controlled([1], [2], [0.0], WEIGHTS)

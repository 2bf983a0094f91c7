"""Swiss tournaments: simulation agrees with enumeration, everybody's wins add up, errors."""

import numpy as np
import pytest

import rlx
from rlx import errors

SCORES = np.random.default_rng(0).random((6, 4))


@pytest.mark.parametrize("eliminations", [0, 1, (0, 2, 0, 1)])
def test_simulation_agrees(eliminations):
    exact = rlx.llm_swiss_round(SCORES, eliminations=eliminations)
    drawn = rlx.llm_swiss_round(SCORES, eliminations=eliminations, simulations=20_000)
    np.testing.assert_allclose(drawn.expected_wins, exact.expected_wins, atol=0.03)


def test_ties_share_and_identical_models_are_equal():
    found = rlx.llm_swiss_round(np.ones((4, 3)))
    np.testing.assert_allclose(found.expected_wins, found.expected_wins[0])
    drawn = rlx.llm_swiss_round(np.ones((4, 3)), simulations=20_000)
    np.testing.assert_allclose(drawn.expected_wins, found.expected_wins, atol=0.03)


def test_the_first_round_pairs_everybody():
    assert rlx.llm_swiss_round(SCORES[:, :1]).expected_wins.sum() == pytest.approx(3)
    assert rlx.llm_swiss_round(SCORES, eliminations=6).expected_wins.sum() == pytest.approx(3)  # then nobody is left


def test_errors():
    with pytest.raises(errors.UserError, match="9 models are too many to enumerate: pass simulations="):
        rlx.llm_swiss_round(np.zeros((9, 1)))
    with pytest.raises(errors.UserError, match=r"finite scores \[models, rounds\]"):
        rlx.llm_swiss_round(np.full((2, 2), np.nan))

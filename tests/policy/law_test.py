"""The entropy-performance law: prediction at other entropies, other features, what cannot be fitted."""

import numpy as np
import pytest

import rlx
from rlx import errors

ENTROPY = np.linspace(2.0, 0.5, 8)


def test_the_early_phase_predicts_the_late_one() -> None:
    performance = 0.9 - 0.08 * np.exp(ENTROPY)
    fit = rlx.entropy_performance_law(ENTROPY[:4], performance[:4])
    np.testing.assert_allclose(fit(ENTROPY), performance, rtol=1e-9)
    np.testing.assert_allclose(fit.ceiling, 0.9 - 0.08, rtol=1e-9)


def test_a_straight_line_is_told_apart() -> None:
    performance = 0.9 - 0.3 * ENTROPY
    line = rlx.entropy_performance_law(ENTROPY, performance, feature=np.positive)
    np.testing.assert_allclose([line.a, line.b, line.ceiling, line.r_squared], [0.3, 0.9, 0.9, 1.0], rtol=1e-9)
    assert rlx.entropy_performance_law(ENTROPY, performance).r_squared < 0.99


def test_a_flat_performance_is_explained() -> None:
    fit = rlx.entropy_performance_law(ENTROPY, np.ones(8))
    assert fit.r_squared == 1 and fit.a == 0


@pytest.mark.parametrize(
    ("entropy", "performance", "message"),
    [
        ([1.0], [1.0], "two lists of the same length, of 2 at least"),
        ([1.0, 2.0], [1.0], r"entropy \(2,\) and performance \(1,\)"),
        ([1.0, 1.0], [0.0, 1.0], "All entropies are 1: a law needs points of different entropy"),
        ([1.0, np.nan], [0.0, 1.0], "must be finite: leave out the steps"),
    ],
)
def test_what_cannot_be_fitted(entropy: list, performance: list, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        rlx.entropy_performance_law(entropy, performance)

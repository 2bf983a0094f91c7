"""Intervals against scipy, coverage by simulation, and verdicts."""

import math

import numpy as np
import pytest
from scipy import stats

from rlx.errors import UserError
from rlx.report.intervals import (
    Interval,
    mean_interval,
    paired_bootstrap,
    paired_interval,
    verdict,
    wilson_interval,
)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 100])
def test_mean_interval_is_scipys(n):
    values = np.random.default_rng(n).normal(2.0, 3.0, n)
    ours = mean_interval(values)
    theirs = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=1e-9)
    assert ours.n == n and math.isclose(ours.half_width, (ours.high - ours.low) / 2)


def test_one_value_has_no_interval():
    interval = mean_interval([0.5])
    assert interval.mean == 0.5 and interval.n == 1
    assert math.isnan(interval.low) and math.isnan(interval.half_width)
    assert verdict("greater", interval) == "inconclusive"


def test_equal_values_have_an_interval_of_no_length():
    assert mean_interval([0.25] * 4) == Interval(0.25, 0.25, 0.25, 4)


def test_values_that_are_not_finite_show():
    assert math.isnan(mean_interval([1.0, math.nan, 2.0]).mean)
    assert math.isnan(mean_interval([1.0, math.inf, -math.inf]).mean)
    diverged = mean_interval([1.0, math.inf])
    assert diverged.mean == math.inf and math.isnan(diverged.low)


def test_paired_interval_is_scipys_paired_test():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=12) * 5
    ours, theirs = shared + 0.3 + 0.1 * generator.normal(size=12), shared + 0.1 * generator.normal(size=12)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = paired_interval(ours, theirs)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-9)
    assert found.half_width < mean_interval(ours).half_width / 10  # pairing removes what is shared


def test_paired_bootstrap_is_repeatable_and_close_to_scipys():
    generator = np.random.default_rng(1)
    ours, theirs = generator.normal(1.0, 1.0, 200), generator.normal(0.0, 1.0, 200)
    found = paired_bootstrap(ours, theirs)
    assert found == paired_bootstrap(ours, theirs) != paired_bootstrap(ours, theirs, seed=1)
    exact = mean_interval(ours - theirs)
    assert abs(found.low - exact.low) < 0.02 and abs(found.high - exact.high) < 0.02
    assert math.isclose(found.mean, exact.mean)


def test_paired_bootstrap_does_not_depend_on_its_blocks():
    ours = np.arange(9_000.0)
    interval = paired_bootstrap(ours, ours - 1.0, resamples=1000)
    assert interval == Interval(1.0, 1.0, 1.0, 9_000)


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (10, 10), (612, 1000), (1, 1)])
def test_wilson_is_scipys(successes, count):
    expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    found = wilson_interval(successes, count)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-9, atol=1e-12)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_wilson_of_nothing_is_nan_and_nonsense_is_an_error():
    assert math.isnan(wilson_interval(0, 0).mean)
    with pytest.raises(UserError, match="needs 0 <= successes <= count, not 11 of 10"):
        wilson_interval(11, 10)


def test_ninety_five_per_cent_of_t_intervals_hold_the_mean():
    values = np.random.default_rng(3).normal(1.0, 2.0, (2000, 5))
    held = np.mean([interval.low <= 1.0 <= interval.high for interval in map(mean_interval, values)])
    assert abs(held - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize(
    ("side", "low", "high", "expected"),
    [
        ("greater", 0.1, 0.3, "reproduced"),
        ("greater", -0.3, -0.1, "not reproduced"),
        ("greater", -0.1, 0.3, "inconclusive"),
        ("greater", 0.0, 0.3, "inconclusive"),
        ("less", -0.3, -0.1, "reproduced"),
        ("less", 0.1, 0.3, "not reproduced"),
        ("less", -0.3, 0.0, "inconclusive"),
    ],
)
def test_verdict(side, low, high, expected):
    assert verdict(side, Interval((low + high) / 2, low, high, 8)) == expected


def test_mistakes_are_named():
    with pytest.raises(UserError, match="'greater' or 'less', not '>'"):
        verdict(">", Interval(1.0, 0.5, 1.5, 8))
    with pytest.raises(UserError, match="equal lengths, not 2 and 3"):
        paired_interval([1, 2], [1, 2, 3])
    with pytest.raises(UserError, match=r"at least one value, not an array of shape \(0,\)"):
        mean_interval([])

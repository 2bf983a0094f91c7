"""Statistics of k samples against the enumeration of all subsets, ragged problems, and errors."""

import itertools
from collections import Counter

import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation import checks, sampling

RNG = np.random.default_rng(0)
WHERE = np.arange(7) < np.array([[7], [5], [4]])
ANSWERS, REWARDS = RNG.integers(0, 3, (3, 7)), RNG.integers(0, 4, (3, 7)).astype(float)
CORRECT = RNG.integers(0, 2, (3, 7))


def majority(subset, problem):
    counts = Counter(ANSWERS[problem][list(subset)].tolist())
    tied = [a for a, c in counts.items() if c == max(counts.values())]
    return np.mean([CORRECT[problem][[i for i in subset if ANSWERS[problem][i] == a]].mean() for a in tied])


def best(subset, problem):
    own = REWARDS[problem][list(subset)]
    return CORRECT[problem][list(subset)][own == own.max()].mean()


VALUES = {
    "pass_at_k": (lambda subset, problem: CORRECT[problem][list(subset)].max(), (CORRECT,)),
    "best_of_n": (best, (REWARDS, CORRECT)),
    "majority_at_k": (majority, (ANSWERS, CORRECT)),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_all_subsets_of_ragged_problems(name, k):
    """Ties of rewards and of votes included; what is masked is not there."""
    value, arrays = VALUES[name]
    found = getattr(rlx, name)(*arrays, k=k, where=WHERE)
    for problem, n in enumerate(WHERE.sum(-1)):
        expected = np.mean([value(subset, problem) for subset in itertools.combinations(range(n), k)])
        np.testing.assert_allclose(found.per_problem[problem], expected, rtol=1e-12, atol=1e-15)
    assert found.mean == found.per_problem.mean() and found.low <= found.mean <= found.high


@pytest.mark.parametrize("name", VALUES)
def test_too_few_samples(name):
    _, arrays = VALUES[name]
    with pytest.raises(errors.UserError, match=f"{name} at k = 5 needs 5 samples of every problem; problem 2 has 4"):
        getattr(rlx, name)(*arrays, k=5, where=WHERE)
    with pytest.raises(errors.UserError, match="needs k >= 1, not 0"):
        getattr(rlx, name)(*arrays, k=0)


def test_unequal_shapes_and_nan():
    with pytest.raises(errors.UserError, match=r"rewards \(3, 7\), correct \(3, 6\), where \(3, 7\)"):
        rlx.best_of_n(REWARDS, CORRECT[:, :6], k=2)
    with pytest.raises(errors.UserError, match="rewards holds NaN"):
        rlx.best_of_n(np.full((1, 3), np.nan), np.ones((1, 3)), k=2)
    hidden = np.where(WHERE, REWARDS, np.nan)
    assert (
        rlx.best_of_n(hidden, CORRECT, k=2, where=WHERE).mean == rlx.best_of_n(REWARDS, CORRECT, k=2, where=WHERE).mean
    )


def test_one_problem_has_no_interval():
    found = rlx.pass_at_k([1, 0], k=1)
    assert found.mean == 0.5 and np.isnan([found.low, found.high]).all()


def test_the_interval_covers():
    """95 % of intervals over 40 problems hold the true mean, and one whose values all agree still has a width."""
    draws = np.random.default_rng(1).beta(1, 2, (500, 40))
    ends = [checks.over_problems(values) for values in draws]
    assert 0.92 < np.mean([estimate.low <= 1 / 3 <= estimate.high for estimate in ends]) < 0.98
    nothing = checks.over_problems(np.zeros(20))
    assert nothing.low == 0 and 0.1 < nothing.high < 0.2


def test_large_numbers_do_not_overflow():
    correct = np.arange(2000) < 700
    answers = np.repeat([0, 1, 2], [1500, 300, 200])
    assert rlx.pass_at_k(correct, k=1000).mean == 1.0
    assert 0 < rlx.best_of_n(RNG.random(2000), correct, k=1000).mean < 1
    np.testing.assert_allclose(rlx.majority_at_k(answers, answers == 0, k=40).mean, 1, rtol=1e-5)


def test_counts_agree_with_samples():
    """Where fewer than k samples are wrong the chance is exactly 1, also of a problem with fewer than k samples."""
    np.testing.assert_array_equal(sampling.any_correct([5, 5, 2], [4, 5, 0], k=3), 1.0)
    assert sampling.any_correct(3, 0, k=2) == 0

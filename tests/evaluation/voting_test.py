"""Votes: consistency by enumeration, submissions and their ties, models of unequal consistency, where to sample."""

import itertools
from collections import Counter

import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation import voting


@pytest.mark.parametrize("budget", [1, 2, 3, 5])
def test_self_consistency_by_enumeration(budget):
    shares, expected = np.array([0.2, 0.45, 0.35]), 0.0
    for votes in itertools.product(range(3), repeat=budget):
        counts = np.bincount(votes, minlength=3)
        expected += shares[list(votes)].prod() * (counts[1] == counts.max()) / (counts == counts.max()).sum()
    np.testing.assert_allclose(rlx.self_consistency_rate(shares, budget=budget), expected, rtol=1e-12)


def test_self_consistency_grows_to_one_and_needs_probabilities():
    rates = [rlx.self_consistency_rate([0.5, 0.3, 0.2, 0.0], budget=budget) for budget in (1, 5, 25, 125)]
    assert rates == sorted(rates) and 0.99 < rates[-1] < 1
    with pytest.raises(errors.UserError, match="probabilities that sum to 1 and budget >= 1, not 0.7"):
        rlx.self_consistency_rate([0.5, 0.2], budget=3)


def test_first_occurrence_breaks_ties():
    assert voting.most_frequent(["b", "a", "a", "b"]) == ["b"]
    assert voting.most_frequent(["b", "b", "a", "a"], where=[True, False, True, True]) == ["a"]


def test_submissions():
    answers, rewards = [3, 3, 1, 1, 0], [5.0, 2.0, 0.0, 1.0]
    assert rlx.best_of_majority(answers, rewards, alpha=0.4, k=5).submitted == [1, 3]
    assert rlx.best_of_majority(answers, rewards, alpha=0.0, k=2).submitted == [0, 1]
    assert rlx.best_of_majority(answers, rewards, alpha=0.5).submitted == []
    kept = rlx.best_of_majority(answers, rewards, alpha=0.4, k=5, where=[True] * 4 + [False])
    assert kept.frequencies == {1: 0.5, 3: 0.5}
    with pytest.raises(errors.UserError, match="at least one answer"):
        rlx.best_of_majority([], rewards)


def test_collective_vote_of_ragged_models():
    answers = np.array([[0, 0, 2, 9], [1, 1, 1, 9], [0, 2, 9, 9]])
    found = rlx.rlccf_vote(answers, where=answers < 9)
    np.testing.assert_allclose(found.self_consistency, [2 / 3, 1, 1 / 2])
    np.testing.assert_allclose(found.weighted_votes[:3], [4 / 3 + 1 / 2, 3, 2 / 3 + 1 / 2])
    assert found.pseudo_label == 1 and found.rewards.sum() == 3
    with pytest.raises(errors.UserError, match=r"a sample of every model, not \(2, 2\)"):
        rlx.rlccf_vote([[0, 1], [1, 1]], where=[[True, True], [False, False]])


def test_votes_that_differ_by_rounding_tie():
    """0.1 + 0.2 and 0.3: the lowest id wins."""
    answers = np.array([[0, 2, 3], [0, 1, 1]])
    assert rlx.rlccf_vote(answers).pseudo_label == 1
    assert rlx.rlccf_vote([[1, 1, 1, 0, 0, 0]]).pseudo_label == 0


def test_samples_go_where_the_majority_is_open():
    flips = np.random.default_rng(0)
    found = rlx.okg_allocate(
        lambda question: int(flips.integers(2)) if question == 1 else 0, questions=3, answers=2, budget=60, draws=200
    )
    assert found.counts.sum() == 60 == len(found.order) and found.counts[1].sum() > 30
    assert Counter(found.order.tolist()) == dict(enumerate(found.counts.sum(-1).tolist()))

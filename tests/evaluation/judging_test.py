"""Judges: the error rate that is promised is kept, peaked judges, contradictions counted by hand, errors."""

import itertools

import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.evaluation import judging


def judged(rng, count):
    """A judge who is as often right as it is sure."""
    p = rng.beta(0.5, 0.5, count)
    right = rng.random(count) < np.maximum(p, 1 - p)
    return p, (~right).astype(float)


def test_false_discovery_rate_is_kept():
    """Over many calibration sets, verdicts on new items are wrong at most a share alpha of the time."""
    rng, wrong, accepted = np.random.default_rng(0), 0.0, 0.0
    for _ in range(300):
        p, errors_of = judged(rng, 200)
        found = rlx.scope_selective_judging(p, p, errors_of, alpha=0.1)
        new, new_errors = judged(rng, 200)
        kept = judging.bidirectional_entropy(new, new)[1] <= found.threshold
        wrong, accepted = wrong + new_errors[kept].sum(), accepted + kept.sum()
    assert 0.06 < wrong / accepted <= 0.1


def test_the_threshold_is_not_the_first_that_fails():
    """Infeasible at 0.3, feasible again at 0.9."""
    errors_of = np.array([0, 0, 0, 1, *[0] * 9, 0])
    scores = np.array([0.1, 0.1, 0.1, 0.3, *[0.5] * 9, 0.9])
    assert judging.selective_threshold(scores, errors_of, alpha=0.4) == 0.9
    assert judging.selective_threshold(scores[:4], errors_of[:4], alpha=0.4) == 0.1
    assert judging.selective_threshold(scores[:2], errors_of[:2], alpha=0.4) == -np.inf
    assert judging.selective_threshold(scores[:2], errors_of[:2], alpha=0.4, slack=0.6) == 0.1


def test_too_small_a_set_abstains_and_masked_items_are_not_there():
    found = rlx.scope_selective_judging([0.99] * 9, [0.99] * 9, [0] * 9)
    assert found.threshold == -np.inf and not found.accepted.any()
    where = np.arange(20) < 15
    p, wrong = np.where(where, 0.9, 0.5), np.where(where, 0, 1)
    removed = rlx.scope_selective_judging(p[:15], p[:15], wrong[:15])
    masked = rlx.scope_selective_judging(p, p, wrong, where=where)
    assert masked.threshold == removed.threshold > 0 and masked.accepted.sum() == 15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlx.scope_selective_judging([0.5], [0.5, 0.5], [0, 1]), r"the same items, not \(1,\) and \(2,\)"),
        (lambda: rlx.scope_selective_judging([0.5], [0.5], [0, 1]), "vectors of one length"),
        (lambda: rlx.scope_selective_judging([1.5], [1.5], [0]), r"lie in \[0, 1\]"),
        (lambda: rlx.scope_selective_judging([0.5], [0.5], [0], alpha=1.0), "alpha must lie between 0 and 1"),
        (lambda: judging.conflict_ratio([1.0], [[0]]), "at least two responses"),
        (lambda: judging.non_transitivity_ratio(np.zeros((3, 3)), k=4), "3 <= k <= 3 responses, not k = 4"),
    ],
)
def test_errors(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()


def test_scores_of_peaked_flat_and_silent_judges():
    found = rlx.trustjudge(
        [[0, 0, 0, 1.0, 0], [0.2] * 5, [0.1, 0.2, 0.3, 0.4, 0.0]], where=np.array([[True] * 5] * 2 + [[False] * 5])
    )
    np.testing.assert_allclose(found, [4, 3, 0])


def test_verdicts():
    assert rlx.trustjudge_verdict([0.5, 0.3, 0.2], [0.5, 0.3, 0.2]).sign == 0  # it prefers what comes first
    assert rlx.trustjudge_verdict([0.1, 0.8, 0.1], [0.6, 0.2, 0.2]).sign == -1
    assert rlx.trustjudge_verdict([0.1, 0.1, 0.8], [0.1, 0.1, 0.8]).sign == 0
    assert judging.perplexity_verdict([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [2.0, 1.0]).sign == -1
    assert judging.perplexity_verdict([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [1.0, 1.01]).sign == 0


def test_an_order_is_consistent_and_nothing_else():
    """Every three numbers give consistent verdicts, and every consistent triple comes from three numbers."""
    triples = {
        (int(np.sign(a - b)), int(np.sign(b - c)), int(np.sign(a - c)))
        for a, b, c in itertools.product(range(3), repeat=3)
    }
    assert {t for t in itertools.product((-1, 0, 1), repeat=3) if judging.consistent(*t)} == triples


def test_contradictions():
    """Of four responses: 0 > 1 > 2 > 0 is a circle; 3 ties with all of them, which contradicts every win."""
    verdicts = np.array([[0, 1, -1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert judging.non_transitivity_ratio(verdicts) == (1.0, 0.25, 0.75)
    assert judging.non_transitivity_ratio(verdicts, k=4) == (1.0, 1.0, 0.0)
    assert judging.conflict_ratio([4, 3, 2, 1], verdicts) == pytest.approx(4 / 6)
    assert judging.conflict_ratio([4, 3, 2, 1], verdicts, tolerance=9) == pytest.approx(3 / 6)

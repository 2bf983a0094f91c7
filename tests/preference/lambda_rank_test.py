"""Lambda losses: against loops over pairs, which mean is meant, what carries a gradient, and cutoffs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import aggregate, errors
from rlx.preference import lambda_rank

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(3, 4)).astype(np.float32)
LABELS = np.array([[2, 0, 1, 1], [0, 3, 1, 0], [1, 1, 1, 1]], np.float32)
WHERE = np.array([[True, True, True, True], [True, True, False, True], [True, True, True, False]])


def written_out(weight=lambda i, j, ranks, gains: 1.0, scores=SCORES):
    """The losses of the ordered pairs of every list."""
    lists = []
    for s, y, real in zip(scores.astype(np.float64), LABELS, WHERE, strict=True):
        members = np.flatnonzero(real)
        ranks = {i: 1 + sum(s[j] > s[i] for j in members) for i in members}
        gains = {i: 2.0 ** y[i] - 1 for i in members}
        pairs = [(i, j) for i in members for j in members if y[i] > y[j]]
        lists.append([weight(i, j, ranks, gains) * np.logaddexp(0, s[j] - s[i]) for i, j in pairs])
    return lists


def dcg(i, j, ranks, gains):
    """The change of DCG when two candidates trade places."""
    return abs(gains[i] - gains[j]) * abs(1 / np.log2(1 + ranks[i]) - 1 / np.log2(1 + ranks[j]))


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        (aggregate.mean, lambda lists: np.mean(sum(lists, []))),
        (aggregate.total, lambda lists: np.sum(sum(lists, []))),
        (aggregate.sequence_sum, lambda lists: np.mean([sum(pairs) for pairs in lists if pairs])),
        (aggregate.sequence_mean, lambda lists: np.mean([np.mean(pairs) for pairs in lists if pairs])),
    ],
)
def test_a_reduction_is_over_pairs_or_over_lists(reduce, expected):
    found = lambda_rank.ranknet(SCORES, LABELS, where=WHERE, reduce=reduce)
    np.testing.assert_allclose(found, expected(written_out()), rtol=1e-5)


def test_lambdarank_against_loops_in_both_conventions():
    expected = sum(sum(written_out(dcg), []))
    rax = lambda_rank.lambdaloss(SCORES, LABELS, where=WHERE, reduce=aggregate.total)
    np.testing.assert_allclose(rax, 4 * expected, rtol=1e-5)
    plain = lambda_rank.lambdaloss(SCORES, LABELS, weighting="lambdarank", where=WHERE, reduce=aggregate.total)
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    ideal = [3 + 1 / np.log2(3) + 1 / np.log2(4), 7.0]
    by_list = [sum(pairs) / scale for pairs, scale in zip(written_out(dcg), ideal, strict=False)]
    allrank = lambda_rank.lambdaloss_allrank(SCORES, LABELS, base=math.e, where=WHERE)
    np.testing.assert_allclose(allrank, sum(by_list), rtol=1e-5)


def test_weights_carry_no_gradient():
    weights = lambda_rank.lambda_weights(SCORES, LABELS, where=WHERE)

    def constant(scores):
        options = {"weighting": lambda standing: weights, "where": WHERE}
        return lambda_rank.lambdaloss(scores, LABELS, **options)

    expected, found = (
        jax.grad(f)(jnp.asarray(SCORES)) for f in (constant, lambda s: lambda_rank.lambdaloss(s, LABELS, where=WHERE))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ndcg1_counts_a_candidate_against_itself():
    """One relevant item: gain over ideal 1, discount 1, and -log2 of one half."""
    found = lambda_rank.lambdaloss_allrank(jnp.array([3.0]), jnp.array([2.0]), weighting="ndcg1")
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)
    assert lambda_rank.lambdaloss_allrank(jnp.array([3.0]), jnp.array([2.0]), weighting="ndcg2") == 0


def test_beyond_the_cutoff_there_is_no_gradient():
    scores, labels = jnp.array([4.0, 3.0, 2.0, 1.0]), jnp.array([0.0, 1.0, 0.0, 3.0])
    slope = jax.grad(lambda s: lambda_rank.lambdaloss_allrank(s, labels, topn=2))(scores)
    assert (slope[:2] != 0).all() and not slope[2:].any()
    slope = jax.grad(lambda s: lambda_rank.lambdaloss(s, labels, topn=2))(scores)
    assert slope[3] != 0  # rax counts pairs with one rank within the cutoff


def test_mu_mixes_ndcg2_and_lambdarank():
    parts = {
        name: lambda_rank.lambdaloss_allrank(SCORES, LABELS, weighting=name, where=WHERE)
        for name in ("ndcg2", "lambdarank")
    }
    mixed = lambda_rank.lambdaloss_allrank(SCORES, LABELS, weighting="ndcg2pp", mu=3.0, where=WHERE)
    np.testing.assert_allclose(mixed, 3 * parts["ndcg2"] + parts["lambdarank"], rtol=1e-5)


def test_a_hopeless_pair_stops_at_the_floor():
    found, slope = jax.value_and_grad(
        lambda s: lambda_rank.lambdaloss_allrank(s, jnp.array([1.0, 0.0]), weighting="none", base=10.0)
    )(jnp.array([-1e4, 1e4]))
    np.testing.assert_allclose(found, 10.0, rtol=1e-6)
    assert not slope.any()


def test_lipo_weighs_the_pair_and_counts_lists_without_one():
    policy, reference, labels = jnp.array([[-1.0, -3.0]] * 2), jnp.zeros((2, 2)), jnp.array([[0.0, 1.0], [0.5, 0.5]])
    weight = abs(1 / math.log(2) - 1 / math.log(3))
    expected = weight * np.logaddexp(0, 0.5 * 2.0)
    losses = lambda_rank.lipo_lambda(policy, reference, labels, beta=0.5, reduce=None)
    np.testing.assert_allclose(losses, [expected, 0.0], rtol=1e-6)
    np.testing.assert_allclose(lambda_rank.lipo_lambda(policy, reference, labels, beta=0.5), expected / 2, rtol=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match=r"Unknown weighting 'ndgc2'\. Did you mean 'ndcg2"):
        lambda_rank.lambdaloss(SCORES, LABELS, weighting="ndgc2")
    with pytest.raises(errors.UserError, match="sigma must be above 0, got 0"):
        lambda_rank.lambdaloss_allrank(SCORES, LABELS, sigma=0)
    with pytest.raises(errors.UserError, match=r"labels has shape \(2,\), but scores has shape \(3, 4\)"):
        lambda_rank.ranknet(SCORES, jnp.zeros(2))

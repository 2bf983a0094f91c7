"""Ranked responses: two of them are a pair, short lists leave the mean, padding does not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import pairwise, ranked

RNG = np.random.default_rng(0)
POLICY, REFERENCE = (-RNG.exponential(3, (2, 4)).astype(np.float32) for _ in range(2))
REWARDS = -np.sort(-RNG.normal(size=(2, 4)), -1).astype(np.float32)
LENGTHS = RNG.integers(1, 6, (2, 4))
SHORT = np.array([[True, True, False, True], [False, True, False, False]])


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, where: ranked.dpo_pl(p, REFERENCE, where=where, reduce=None),
        lambda p, where: ranked.pro(p, LENGTHS, REWARDS, where=where, reduce=None),
        lambda p, where: ranked.irpo(p, REFERENCE, REWARDS, where=where, reduce=None),
    ],
)
def test_padding_is_removed_and_singletons_have_nothing_to_rank(loss):
    losses = loss(POLICY, SHORT)
    assert losses[0] > 0 and losses[1] == 0
    slope = jax.grad(lambda p: loss(p, SHORT).sum())(jnp.asarray(POLICY))
    np.testing.assert_array_equal(np.asarray(slope)[~SHORT], 0)
    assert not slope[1].any()


def test_dpo_pl_without_padding_is_the_same():
    kept = SHORT[0]
    np.testing.assert_allclose(
        ranked.dpo_pl(POLICY[0], REFERENCE[0], where=kept),
        ranked.dpo_pl(POLICY[0, kept], REFERENCE[0, kept]),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        ranked.pro(POLICY[0], LENGTHS[0], REWARDS[0], where=kept),
        ranked.pro(POLICY[0, kept], LENGTHS[0, kept], REWARDS[0, kept]),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        ranked.irpo(POLICY[0], REFERENCE[0], REWARDS[0], where=kept),
        ranked.irpo(POLICY[0, kept], REFERENCE[0, kept], REWARDS[0, kept]),
        rtol=1e-6,
    )


def test_dpo_pl_of_two_is_dpo_and_its_mean_is_over_lists_that_rank():
    pair = pairwise.dpo(POLICY[:, :2], REFERENCE[:, :2], beta=0.3)
    np.testing.assert_allclose(ranked.dpo_pl(POLICY[:, :2], REFERENCE[:, :2], beta=0.3), pair, rtol=1e-6)
    both = ranked.dpo_pl(POLICY, REFERENCE, where=SHORT)
    np.testing.assert_allclose(both, ranked.dpo_pl(POLICY[0], REFERENCE[0], where=SHORT[0]), rtol=1e-6)


def test_best_against_the_rest_is_a_softmax():
    reward = 0.1 * (POLICY - REFERENCE)
    expected = (np.logaddexp.reduce(reward, -1) - reward[:, 0]).mean()
    np.testing.assert_allclose(ranked.dpo_pl(POLICY, REFERENCE, top_k=1), expected, rtol=1e-5)


def test_pro_of_two_is_logistic_in_the_gap_and_fine_tunes_on_the_best():
    gap, difference = 1.5, POLICY[0, 0] / 2 - POLICY[0, 1] / 4
    found = ranked.pro(POLICY[0, :2], jnp.array([2, 4]), jnp.array([gap, 0.0]), sft_weight=0.1, epsilon=0.0)
    np.testing.assert_allclose(found, np.logaddexp(0, -gap * difference) - 0.1 * POLICY[0, 0], rtol=1e-5)


def test_pro_is_its_stages_and_the_fine_tuning():
    stages, staged = ranked.pro_stages(POLICY / LENGTHS, REWARDS)
    np.testing.assert_array_equal(staged, [[True, True, True, False]] * 2)
    expected = stages.sum(-1) - 0.05 * 9 * POLICY[:, 0]
    np.testing.assert_allclose(ranked.pro(POLICY, LENGTHS, REWARDS, reduce=None), expected, rtol=1e-5)


def test_tied_rewards_contrast_nothing():
    slope = jax.grad(lambda p: ranked.pro(p, LENGTHS, np.ones((2, 4)), sft_weight=0.0))(jnp.asarray(POLICY))
    np.testing.assert_array_equal(slope, 0)


def test_irpo_of_two_is_half_of_dpo_and_sums_over_lists():
    labels = np.array([[1.0, 0.0]] * 2)
    expected = pairwise.dpo(POLICY[:, :2], REFERENCE[:, :2], beta=0.7)
    np.testing.assert_allclose(ranked.irpo(POLICY[:, :2], REFERENCE[:, :2], labels, beta=0.7), expected, rtol=1e-5)


def test_irpo_ranks_by_its_labels_or_as_told():
    labels, ranks = np.array([1.0, 3.0, 0.0, 2.0]), np.array([3, 1, 4, 2])
    by_label, told = (ranked.irpo(POLICY[0], REFERENCE[0], labels, r) for r in (None, ranks))
    assert by_label == told != ranked.irpo(POLICY[0], REFERENCE[0], labels, ranks[::-1])


def test_the_official_diagonal_shows_at_a_small_beta():
    paper, official = (
        ranked.irpo(POLICY[0], REFERENCE[0], REWARDS[0], beta=0.02, weighting="rank", diagonal=d)
        for d in (-np.inf, -100.0)
    )
    assert official > paper * 1.01


def test_unknown_weightings_are_named():
    with pytest.raises(errors.UserError, match="Unknown weighting 'dgc'. Did you mean 'dcg'"):
        ranked.irpo(POLICY, REFERENCE, REWARDS, weighting="dgc")
    with pytest.raises(errors.UserError, match=r"rewards has shape \(2, 3\), but policy_logps has shape \(2, 4\)"):
        ranked.pro(POLICY, LENGTHS, REWARDS[:, :3])

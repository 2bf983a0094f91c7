"""Budgets against exhaustive search, batches by score, votes, carry-over, errors."""

import itertools

import numpy as np
import pytest

from rlx import errors
from rlx.policy import rollouts


@pytest.mark.parametrize("seed", range(3))
def test_no_other_allocation_is_worth_more(seed):
    rates = np.random.default_rng(seed).random(3)
    found = rollouts.knapsack_budget_allocation(rates, budget=15, n_low=2, n_up=9)
    every = itertools.product(range(2, 10), repeat=3)
    best = max(sum(found.values[i, n - 2] for i, n in enumerate(ns)) for ns in every if sum(ns) <= 15)
    np.testing.assert_allclose(found.total_value, best, rtol=1e-12)
    assert found.allocation.sum() == 15


def test_a_budget_that_nobody_can_use_is_left_over():
    found = rollouts.knapsack_budget_allocation([0.0, 1.0, 0.5], budget=100, n_low=1, n_up=8)
    np.testing.assert_array_equal(found.allocation, [1, 1, 8])
    np.testing.assert_array_equal(rollouts.knapsack_budget_allocation([0.5], budget=4, n_low=4, n_up=4).allocation, 4)


def test_prompts_are_drawn_in_proportion_to_their_scores():
    draw = rollouts.vas_batch(np.array([1.0, 3.0] + [0.0] * 3998), batch_size=8000, seed=3)
    assert set(draw.weighted) == {0, 1} and len(set(draw.uniform)) == len(draw.uniform) == 4000
    assert abs((draw.weighted == 1).mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)
    again = rollouts.vas_batch(np.array([1.0, 3.0] + [0.0] * 3998), batch_size=8000, seed=3)
    np.testing.assert_array_equal(draw.weighted, again.weighted)


def test_a_vote_counts_answers_that_exist():
    vote = rollouts.ttrl_majority_reward(["a", "b", "b", "b"], where=[True, True, False, False])
    assert (vote.label, vote.ratio, vote.rewards.tolist()) == ("a", 0.5, [1, 0, 0, 0])


def test_groups_are_first_in_first_out():
    """Nothing is lost or trained on twice; recovered groups come before new ones."""
    carried, trained, rng = rollouts.Carried(), [], np.random.default_rng(0)
    sampled, useful = iter(range(1000)), []
    for _ in range(20):
        groups = [next(sampled) for _ in range(5)]
        counts = rng.integers(0, 5, 5).tolist()
        useful += [group for group, count in zip(groups, counts, strict=True) if 0 < count < 4]
        batch, carried = rollouts.recent_sample_recovery(carried, groups, counts, batch_size=4, group_size=4)
        assert len(batch) in (0, 4)
        trained += batch
    assert [*trained, *carried.pending, *carried.recovered] == useful


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rollouts.knapsack_budget_allocation([1.5], budget=9), "one number in .0, 1. for each prompt"),
        (lambda: rollouts.knapsack_budget_allocation([0.5], budget=9, n_low=4, n_up=2), "wants 1 <= n_low <= n_up"),
        (
            lambda: rollouts.knapsack_budget_allocation([0.5] * 3, budget=5),
            "3 prompts with 2 each exceed a budget",
        ),
        (lambda: rollouts.vas_batch([1.0], batch_size=1, mixture=2), "mixture is a share and must be in .0, 1., got 2"),
        (lambda: rollouts.vas_batch([0.0, 0.0], batch_size=1), "at least 0, and not all of them 0"),
        (lambda: rollouts.vas_batch([1.0, np.nan], batch_size=1), "at least 0, and not all of them 0"),
        (lambda: rollouts.vas_batch([1.0], batch_size=8), "4 different prompts are wanted of 1"),
        (lambda: rollouts.ttrl_majority_reward([]), "there is no answer to vote"),
        (lambda: recover([1], [1, 2]), "1 groups, but 2 counts"),
        (lambda: recover([1], [5]), "counts are within 0 and group_size=4"),
    ],
)
def test_errors(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()


def recover(groups, counts):
    return rollouts.recent_sample_recovery(rollouts.Carried(), groups, counts, batch_size=2, group_size=4)

"""Matchings of tool calls: optimal against brute force, transport against its limits, mistakes."""

import itertools

import numpy as np
import pytest

from rlx import errors
from rlx.policy import matching

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (1, 3)])
def test_optimal_against_brute_force(shape: tuple[int, int]) -> None:
    similarity = RNG.random(shape) - 0.2
    columns = [*range(shape[1]), *[-1] * shape[0]]
    totals = (
        sum(similarity[i, j] for i, j in enumerate(choice) if j >= 0)
        for choice in set(itertools.permutations(columns, shape[0]))
    )
    found = matching.matchtir_matching_reward(similarity)
    assert found.total == pytest.approx(max(totals))
    assert matching.matchtir_matching_reward(similarity, matching="greedy").total <= found.total + 1e-12


@pytest.mark.parametrize("name", ["optimal", "greedy"])
def test_nothing_similar_is_not_matched(name: str) -> None:
    found = matching.matchtir_matching_reward(np.zeros((2, 3)), matching=name, unmatched_penalty=-0.5)
    np.testing.assert_array_equal(found.assignment, [-1, -1])
    np.testing.assert_array_equal(found.rewards, [-0.5, -0.5])
    assert found.total == 0


def test_transport_has_uniform_marginals() -> None:
    plan = matching.transport_plan(RNG.random((3, 5)))
    np.testing.assert_allclose(plan.sum(1), 1 / 3, atol=1e-6)
    np.testing.assert_allclose(plan.sum(0), 1 / 5, atol=1e-8)


def test_transport_with_little_regularisation_is_the_optimal_matching() -> None:
    similarity = np.array([[0.9, 0.8, 0.1], [0.85, 0.1, 0.2], [0.0, 0.3, 0.4]])
    optimal = matching.matchtir_matching_reward(similarity)
    found = matching.matchtir_matching_reward(similarity, matching="transport", regularization=0.05)
    np.testing.assert_array_equal(found.assignment, optimal.assignment)
    np.testing.assert_allclose(found.rewards, optimal.rewards / 3, atol=1e-2)


@pytest.mark.parametrize("name", ["optimal", "greedy", "transport"])
@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
def test_turns_without_calls(name: str, shape: tuple[int, int]) -> None:
    found = matching.matchtir_matching_reward(np.zeros(shape), matching=name)
    assert found.rewards.shape == shape[:1] and found.total == 0


def test_similarity_of_calls() -> None:
    gold = ("search", {"q": "cat", "k": 3})
    assert matching.call_similarity(gold, gold) == 1
    assert matching.call_similarity(("find", gold[1]), gold) == 0
    assert matching.call_similarity(("search", {}), ("search", {})) == 1
    assert matching.call_similarity(("search", {"q": "dog"}), gold) == pytest.approx((1 + 0.5 + 0) / 4)


@pytest.mark.parametrize(
    ("similarity", "keywords", "message"),
    [
        ([0.5], {}, r"finite matrix \[predicted, gold\], got shape \(1,\)"),
        ([[np.nan]], {}, "finite matrix"),
        ([[0.5]], {"matching": "optimum"}, "Did you mean 'optimal'"),
        ([[0.5]], {"matching": "transport", "regularization": 0.0}, "regularization must be above 0, got 0"),
    ],
)
def test_mistakes(similarity: list, keywords: dict, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        matching.matchtir_matching_reward(similarity, **keywords)


def test_transport_that_does_not_converge_says_so() -> None:
    with pytest.raises(errors.UserError, match="did not converge in 1 iterations: raise regularization"):
        matching.transport_plan(RNG.random((4, 4)), regularization=0.01, max_iterations=1)

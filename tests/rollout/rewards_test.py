"""Rewards composed from configs: sums, gates, penalties, bounds, reports, and what a config can get wrong."""

import numpy as np
import pytest

from rlx.data.tokenizers import ByteTokenizer
from rlx.errors import UserError
from rlx.rollout import rewards
from rlx.rollout.tasks.example import Example

EXAMPLE = Example("2+3", "5")
RESPONSES = [["#### 5", "5", "#### 6", "none"]]


def test_weights_add_and_gates_multiply():
    config = {
        "components": {
            "correct": {"verifier": "final_answer", "weight": 2.0},
            "form": {"verifier": "has_answer", "weight": 0.5},
            "hashes": {"verifier": "matches", "gate": True, "options": {"pattern": "#### .*"}},
        }
    }
    found = rewards.build(config)(RESPONSES, [EXAMPLE])
    np.testing.assert_array_equal(found.total, [[2.5, 0, 0.5, 0]])
    assert found.total.dtype == np.float32
    np.testing.assert_array_equal(found.components["hashes"], [[1, 0, 1, 0]])
    assert found.report() == {
        "reward": 0.75,
        "reward/correct": 0.25,
        "reward/form": 0.5,
        "reward/hashes": 0.5,
        "reward/failures": 0.0,
    }


def test_a_gate_may_be_soft_or_have_a_threshold():
    def half(response: str, example: Example) -> float:
        return len(response) / 10

    sum_of = {"all": lambda response, example: 1.0}
    soft = rewards.build({"components": {**sum_of, "gate": {"verifier": half, "gate": True}}})
    hard = rewards.build({"components": {**sum_of, "gate": {"verifier": half, "gate": True, "threshold": 0.5}}})
    np.testing.assert_allclose(soft([["abcdef", "abc"]], [EXAMPLE]).total, [[0.6, 0.3]], rtol=1e-6)
    np.testing.assert_array_equal(hard([["abcdef", "abc"]], [EXAMPLE]).total, [[1, 0]])


def test_penalties_are_added_after_gates_and_the_total_is_bounded():
    config = {
        "components": {
            "correct": "final_answer",
            "gate": {"verifier": "has_answer", "gate": True},
            "length": {"penalty": "overlong", "weight": 0.5, "options": {"max_length": 10, "buffer_length": 4}},
        },
        "clip": (-0.25, 0.9),
    }
    lengths = np.array([[6, 8, 10, 99]])
    found = rewards.build(config)(RESPONSES, [EXAMPLE], lengths)
    np.testing.assert_allclose(found.components["length"], [[0, -0.5, -1, -1]])
    np.testing.assert_allclose(found.total, [[0.9, -0.25, -0.25, -0.25]])


def test_lengths_are_those_of_token_ids():
    tokenizer = ByteTokenizer()
    linear = {"penalty": "linear", "options": {"per_token": 0.1}}
    reward = rewards.build({"components": {"correct": "final_answer", "length": linear}}, tokenizer)
    ids = [[tokenizer.encode(text) for text in RESPONSES[0]]]
    np.testing.assert_allclose(reward(ids, [EXAMPLE]).total, [[0.4, -0.1, -0.6, -0.4]], rtol=1e-6)
    with pytest.raises(UserError, match="reward.components.length reads lengths: give lengths"):
        reward(RESPONSES, [EXAMPLE])
    with pytest.raises(UserError, match=r"lengths have the shape \(2, 4\), the responses \(1, 4\)"):
        reward(RESPONSES, [EXAMPLE], np.ones((2, 4)))


def test_failures_are_counted_per_batch():
    def fails(response: str, example: Example) -> float:
        raise KeyError(response)

    reward = rewards.build({"components": {"correct": "final_answer", "broken": fails}})
    with pytest.warns(RuntimeWarning, match="verifier 'fails' raised KeyError"):
        first = reward(RESPONSES, [EXAMPLE])
    second = reward(RESPONSES, [EXAMPLE])
    assert (first.failures, second.failures) == (4, 4)
    np.testing.assert_array_equal(second.total, [[1, 0, 0, 0]])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "either a verifier or components"),
        ({"verifier": "exact", "components": {}}, "either a verifier or components"),
        ({"verifer": "exact"}, r"unknown key reward.verifer.*Did you mean 'verifier'"),
        ({"verifier": "exat"}, "Did you mean 'exact'"),
        ({"components": {"a": {"wieght": 1}}}, r"unknown key reward.components.a.wieght.*Did you mean 'weight'"),
        ({"components": {"a": {"weight": 1}}}, "reward.components.a needs one of a verifier, a penalty and a model"),
        ({"components": {"a": {"model": "runs/rm"}}}, "a learned model scores in a run alone"),
        ({"components": {"a": {"penalty": "overlng"}}}, "Did you mean 'overlong'"),
        ({"components": {"a": {"penalty": "overlong", "gate": True}}}, "a penalty is no gate"),
        ({"components": {"a": {"penalty": "linear", "options": {"per_tokn": 1}}}}, "Did you mean 'per_token'"),
        ({"components": {"a": {"verifier": "exact", "gate": True, "weight": 2}}}, "and has no weight"),
        ({"components": {"a": {"verifier": "exact", "gate": True}}}, "nothing to add up"),
        ({"verifier": "exact", "clip": (1, 0)}, "the lower one first"),
    ],
)
def test_mistakes_in_a_config_are_named(config: dict, message: str):
    with pytest.raises(UserError, match=message):
        rewards.build(config)

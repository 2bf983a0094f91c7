"""What the episodes of a group make up together: a tree, a graph, the work of agents."""

import numpy as np
import pytest

from rlx.data.tokenizers import ByteTokenizer
from rlx.rollout.environments import GraphWalk
from rlx.rollout.episode_graphs import agents, graph, tree
from rlx.rollout.episodes import Shape, play
from rlx.rollout.tasks.example import Example

DIAMOND = Example(
    "a>bc b>d c>d d>e a:e=",
    "abde",
    {"edges": {"a": "bc", "b": "d", "c": "d", "d": "e", "e": ""}, "source": "a", "target": "e"},
)
WALKS = ["bde", "bdz", "cd"]


@pytest.fixture(scope="module")
def episodes():
    tokenizer, turn = ByteTokenizer(), iter(range(9))

    def act(tokens, valid):
        now = next(turn)
        return [tokenizer.encode(walk[now : now + 1]) for walk in WALKS]

    shape = Shape(prompt=24, action=1, observation=4, turns=3)
    return play(GraphWalk(step_reward=0.25), [DIAMOND], act, group=3, shape=shape, tokenizer=tokenizer)


def test_equal_beginnings_are_one_branch(episodes):
    found = tree(episodes)
    np.testing.assert_array_equal(found["node_ids"], [[[1, 2, 3], [1, 2, 4], [5, 6, 7]]])
    np.testing.assert_array_equal(found["tree_parent"], [[-1, 0, 1, 2, 2, 0, 5, 6, -2, -2]])
    np.testing.assert_allclose(found["node_rewards"][0, [3, 4, 7]], [1.75, 0.5, 0.5])


def test_walks_are_edges_between_states(episodes):
    found = graph(episodes)
    assert found["edges"].shape == (1, 3, 12, 12)
    ways = [np.argwhere(walk).tolist() for walk in found["edges"][0]]
    # a b d e = 0 1 2 3; an illegal step ends where it began; c = 4, the empty step from d stays there
    assert ways == [[[0, 1], [1, 2], [2, 3]], [[0, 1], [1, 2], [2, 2]], [[0, 4], [2, 2], [4, 2]]]
    np.testing.assert_array_equal(found["edge_ids"][0, 0], [1, 14, 27])


def test_agents_have_the_rewards_of_their_turns(episodes):
    np.testing.assert_allclose(
        agents(episodes)["agent_rewards"], [[[0.25, 0.25, 1.25], [0.25, 0.25, 0], [0.25, 0.25, 0]]]
    )


def test_an_end_by_the_environment_is_told_from_the_last_turn(episodes):
    assert [episode.finished for episode in episodes[0]] == [True, True, True]
    assert all(episode.done for episode in episodes[0])

"""Environments and episodes: their rules, the arrays they become, and episodes that an error ends."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from rlx.data.tokenizers import ByteTokenizer
from rlx.errors import UserError
from rlx.policy.nested import gigpo_advantage, matchtir_advantage
from rlx.rollout import environments
from rlx.rollout.environments import Calculator, GraphWalk, Turn
from rlx.rollout.episode_arrays import to_arrays
from rlx.rollout.episodes import Shape, demonstrations, play, sampled
from rlx.rollout.tasks.example import Example
from rlx.rollout.tool_rewards import match_calls, rematch

TOKENIZER = ByteTokenizer()
DIAMOND = Example(
    "a>bc b>d c>d d>e a:e=",
    "abde",
    {"edges": {"a": "bc", "b": "d", "c": "d", "d": "e", "e": ""}, "source": "a", "target": "e"},
)
SUM = Example("(12+7)*3=", "57", {"calls": ["12+7", "19*3"]})


def scripted(scripts: list[list[str]]):
    """A policy that says what a script says; it checks that the shape of the contexts never changes."""
    shapes, turn = set(), iter(range(100))

    def act(tokens: np.ndarray, valid: np.ndarray) -> list[list[int]]:
        shapes.add((tokens.shape, valid.shape))
        assert len(shapes) == 1
        assert (valid.any(-1) & valid[:, -1]).all()
        now = next(turn)
        return [TOKENIZER.encode(script[now]) if now < len(script) else [] for script in scripts]

    return act


def test_the_walk_follows_edges():
    walk = GraphWalk(step_reward=-0.1, illegal=-1.0, towards=0.25)
    assert walk.step(DIAMOND, "a", "b") == Turn("b", ";d;", 0.15, False)
    assert walk.step(DIAMOND, "d", " e ") == Turn("e", "", 0.9, True, True)
    for action in ("d", "bc", "", "z"):
        assert walk.step(DIAMOND, "a", action) == Turn("a", "", -1.0, True)


def test_the_calculator_answers_calls():
    tool = Calculator(call_reward=0.1, malformed=-0.2)
    state = tool.reset(SUM).state
    turn = tool.step(SUM, state, "calc: 12+7\n")
    assert (turn.observation, turn.reward, turn.done) == ("= 19\n", 0.1, False)
    assert tool.step(SUM, turn.state, "calc: 12+7").reward == 0  # the same once more
    assert tool.step(SUM, turn.state, "calc: 7/2").observation == "= 7/2\n"
    for action in (
        "calc: 1/0",
        "calc: __import__('os')",
        "hello",
        "calc: " + "9" * 50,
        "calc: 9^9^9^9",
        "calc: 1+2+3",
        "calc: 5",
        "",
    ):
        assert tool.step(SUM, state, action)[1:] == ("= ?\n", -0.2, False, False)
    assert tool.step(SUM, state, "answer: 57.0\n")[2:] == (1.0, True, True)
    assert tool.step(SUM, state, "answer: 19*3")[2:] == (0.0, True, False)  # still to be worked out


def test_calls_are_matched_with_those_of_a_known_way():
    shape = Shape(prompt=16, action=16, observation=8, turns=4)
    scripts = [["calc: 12+7\n", "calc: 19*3\n", "answer: 57\n"], ["calc: 19 * 3\n", "calc: 1+1\n", "answer: 5\n"]]
    episodes = play(Calculator(), [SUM], scripted(scripts), group=2, shape=shape, tokenizer=TOKENIZER)
    rematch(episodes)
    arrays = to_arrays(episodes)
    # names of the arguments agree, their values do not: (1 + 1 + 0) / (2 + 2)
    np.testing.assert_allclose(arrays["step_rewards"], [[[1, 1, 1, 0], [1, 0.5, 0, 0]]])
    np.testing.assert_array_equal(arrays["correct"], [[True, False]])
    assert match_calls(episodes[0][1], matching="greedy") == [1, 0.5, 0]


def test_episodes_become_arrays():
    shape = Shape(prompt=24, action=1, observation=4, turns=4)
    scripts = [["b", "d", "e"], ["c", "d", "e"], ["d"]]
    episodes = play(GraphWalk(), [DIAMOND], scripted(scripts), group=3, shape=shape, tokenizer=TOKENIZER)
    arrays = to_arrays(episodes, index=np.array([7]))
    np.testing.assert_array_equal(arrays["state_ids"], [[[0, 1, 2, -1], [0, 3, 2, -1], [0, -1, -1, -1]]])
    np.testing.assert_array_equal(arrays["step_rewards"], [[[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]])
    np.testing.assert_array_equal(arrays["step_where"].sum(-1), [[3, 3, 1]])
    np.testing.assert_array_equal(arrays["rewards"], [[1, 1, 0]])
    np.testing.assert_array_equal(arrays["step_ends"][0, 0], [0, 4, 8, -1])
    assert TOKENIZER.decode(arrays["tokens"][0, 0]) == DIAMOND.prompt + "b;d;d;e;e"
    assert TOKENIZER.decode(arrays["tokens"][0, 0][arrays["where"][0, 0]]) == "bde"
    assert arrays["tokens"].shape == (1, 3, shape.prompt + shape.response)
    turns = [0, -1, -1, -1, 1, -1, -1, -1, 2]
    np.testing.assert_array_equal(arrays["turn_ids"][0, 0], turns + [-1] * (shape.response - len(turns)))
    np.testing.assert_array_equal(np.flatnonzero(arrays["token_rewards"][0, 1]), [8])
    np.testing.assert_array_equal(arrays["lengths"], [[9, 9, 1]])
    np.testing.assert_array_equal(arrays["index"], [7])
    np.testing.assert_array_equal(arrays["correct"], [[True, True, False]])
    assert arrays["candidate_where"].all()
    assert (arrays["valid"] | ~arrays["where"]).all()
    response = arrays["where"][..., shape.prompt :]
    np.testing.assert_array_equal(response, arrays["turn_ids"] >= 0)


def test_methods_of_steps_and_turns_read_the_arrays():
    shape = Shape(prompt=24, action=1, observation=4, turns=3)
    scripts = [["b", "d", "e"], ["c", "d", "c"]]
    episodes = play(GraphWalk(), [DIAMOND], scripted(scripts), group=2, shape=shape, tokenizer=TOKENIZER)
    arrays = to_arrays(episodes)
    steps = gigpo_advantage(arrays["step_rewards"], arrays["state_ids"], where=arrays["step_where"], gamma=1.0)
    # R - mean is 1/2; the walks meet in a and in d, each is half better or worse there; b and c were met once
    np.testing.assert_allclose(steps[0, :, :, 0], [[1, 0.5, 1], [-1, -0.5, -1]])
    where = arrays["where"][..., shape.prompt :]
    found = matchtir_advantage(arrays["token_rewards"], arrays["turn_ids"], where=where)
    assert np.isfinite(found).all()
    assert (np.asarray(found)[0, 0][where[0, 0]] > 0).all()


def test_actions_and_observations_are_cut_to_the_shape():
    shape = Shape(prompt=4, action=12, observation=2, turns=9)
    scripts = [["calc: 12+7\nmore text", "answer: 57 is what I think"], ["no end to this at all", "x", "y", "z", "w"]]
    episodes = play(Calculator(turns=3), [SUM], scripted(scripts), group=2, shape=shape, tokenizer=TOKENIZER)
    arrays = to_arrays(episodes)
    assert arrays["step_rewards"].shape == (1, 2, 3)
    assert TOKENIZER.decode(episodes[0][0].steps[0].action) == "calc: 12+7\n"
    assert TOKENIZER.decode(episodes[0][0].steps[0].observation) == "= "
    assert TOKENIZER.decode(episodes[0][0].steps[1].action) == "answer: 57 i"
    assert TOKENIZER.decode(episodes[0][0].prompt) == "3=\n"
    assert [len(episode.steps) for episode in episodes[0]] == [2, 3]
    assert episodes[0][1].done


class Drawn(NamedTuple):
    """What an engine gives."""

    tokens: np.ndarray
    where: np.ndarray
    logprobs: np.ndarray
    rollout_logprobs: np.ndarray
    entropy: np.ndarray


def test_a_sampler_tells_the_log_probabilities_of_its_actions():
    keys = []

    def engine(params: str, tokens: np.ndarray, valid: np.ndarray, *, group: int, key: jax.Array) -> Drawn:
        assert (params, group) == ("params", 1)
        keys.append(jax.random.key_data(key).tolist())
        written = np.array([[TOKENIZER.encode("b d"[2 * (len(keys) == 2)] + "!")]] * len(tokens))
        numbers = -np.arange(1.0, 3.0) * len(keys) * np.ones(written.shape)
        return Drawn(written, np.ones(written.shape, bool), numbers, 2 * numbers, -numbers)

    shape = Shape(prompt=24, action=1, observation=3, turns=2)
    policy = sampled(engine, "params", jax.random.key(0))
    episodes = play(GraphWalk(), [DIAMOND], policy, group=2, shape=shape, tokenizer=TOKENIZER)
    arrays = to_arrays(episodes)
    assert TOKENIZER.decode(arrays["tokens"][0, 1]) == DIAMOND.prompt + "b;d;d"
    np.testing.assert_array_equal(arrays["old_logprobs"][0, 0], [-1, 0, 0, 0, -2, 0, 0, 0])
    np.testing.assert_array_equal(arrays["rollout_logprobs"], 2 * arrays["old_logprobs"])
    assert len(keys) == 2
    assert keys[0] != keys[1]


@pytest.mark.parametrize("name", sorted(environments.ENVIRONMENTS))
def test_experts_are_right(name: str):
    environment = environments.build({"name": name})
    examples = environment.examples(0, 20)
    shape = Shape(prompt=80, action=32, observation=16, turns=environment.turns)
    arrays = to_arrays(demonstrations(environment, examples, shape=shape, tokenizer=TOKENIZER))
    np.testing.assert_array_equal(arrays["rewards"], np.ones((20, 1)))
    assert environment.examples(0, 20) == examples
    assert not {one.prompt for one in environment.examples(0, 20, split="test")} & {one.prompt for one in examples}
    with pytest.raises(UserError, match="too small for the expert's action"):
        demonstrations(environment, examples, shape=shape._replace(turns=1), tokenizer=TOKENIZER)


class Echo:
    """A user's environment of token ids, which fails on some."""

    turns, stop, reads = 2, "", "ids"

    def __init__(self, reward: float = 0.5):
        self.reward = reward

    def examples(self, seed: int, size: int, *, split: str = "train") -> list[Example]:
        """Nothing is asked."""
        return [Example("", "")] * size

    def reset(self, example: Example) -> Turn:
        """Starts at 0."""
        return Turn(0, "")

    def step(self, example: Example, state: object, action: list[int]) -> Turn:
        """Takes one token."""
        if action == [120]:
            raise RuntimeError("no x")
        return Turn(tuple(action), "", self.reward)


def test_an_environment_that_fails_ends_its_episode_alone():
    shape = Shape(prompt=2, action=1, observation=1, turns=2)
    script = scripted([["a", "b"], ["a", "x"]])
    with pytest.warns(RuntimeWarning, match="1 of 2 episodes were ended .* RuntimeError: no x"):
        episodes = play(Echo(), Echo().examples(0, 1), script, group=2, shape=shape, tokenizer=TOKENIZER)
    np.testing.assert_array_equal(to_arrays(episodes)["rewards"], [[1.0, 0.5]])
    with pytest.warns(RuntimeWarning, match="the reward is nan"):
        play(Echo(float("nan")), [Example("", "")], scripted([["a"]]), group=1, shape=shape, tokenizer=TOKENIZER)


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"no option 'turn'.*Did you mean 'turns'"):
        environments.build({"name": "calculator", "turn": 3})
    with pytest.raises(UserError, match="turns=0; there must be at least one"):
        environments.build({"name": "calculator", "turns": 0})
    with pytest.raises(UserError, match="no option 'node'.*Did you mean 'nodes'"):
        environments.build({"name": "graph_walk", "options": {"node": 3}})
    shape = Shape(8, 1, 1, 1)
    with pytest.raises(UserError, match="must be at least 1"):
        play(GraphWalk(), [DIAMOND], scripted([]), group=0, shape=shape, tokenizer=TOKENIZER)
    with pytest.raises(UserError, match="the policy gave 0 actions for 1 contexts"):
        play(GraphWalk(), [DIAMOND], scripted([]), group=1, shape=shape, tokenizer=TOKENIZER)
    with pytest.raises(UserError, match="Echo has no method expert"):
        demonstrations(Echo(), [DIAMOND], shape=shape, tokenizer=TOKENIZER)
    assert environments.build({"name": Echo}).turns == 2

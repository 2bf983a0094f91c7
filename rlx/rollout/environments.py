"""Environments of several turns: what one is, and two of them, a walk on a graph and a calculator.

An environment is a pair of pure functions over a hashable state, so that a state can be an anchor: two episodes that
meet in equal states are in the same place, whatever way they came. ``episodes`` plays them and makes arrays of them.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, Protocol

from rlx.errors import UserError
from rlx.rollout import answers, tasks
from rlx.rollout.arithmetic import NotArithmetic, evaluate, steps
from rlx.rollout.imports import by_name, check_options
from rlx.rollout.tasks.example import Example
from rlx.rollout.tasks.graphs import shortest_paths


class Turn(NamedTuple):
    """What an environment answers to an action.

    Attributes:
      state: where the episode is now.
      observation: the text that the policy reads before its next action; not read any more when ``done``.
      reward: of the action.
      done: whether the episode has ended.
      correct: whether it has ended well, whatever the rewards on the way.
    """

    state: Hashable
    observation: str
    reward: float = 0.0
    done: bool = False
    correct: bool = False


class Environment(Protocol):
    """Turns of text. ``turns``, and the tokens of an action and an observation, fix the shape of a row.

    ``examples`` are what episodes start from; ``reset`` gives the first state and what is shown after the prompt;
    ``step`` is pure, equal arguments give equal turns. ``stop`` ends an action: it is cut after that text. One that
    reads actions as token ids has the attribute ``reads = "ids"``.
    """

    turns: int
    stop: str

    def examples(self, seed: int, size: int, *, split: str = "train") -> list[Example]: ...

    def reset(self, example: Example) -> Turn: ...

    def step(self, example: Example, state: Hashable, action: str) -> Turn: ...


class GraphWalk:
    """A walk on a graph, one node at a time: the state is the node. Reward 1 at the target.

    Args:
        turns: steps that may be taken.
        step_reward: added to each step along an edge, such as -0.05 for a price of long ways.
        illegal: reward of a step where there is no edge, which ends the walk.
        towards: added when a step brings the target nearer.
        options: of ``tasks.graphs.graphpath``.

    >>> walk = GraphWalk()
    >>> example = Example("a>b b>c a:c=", "abc", {"edges": {"a": "b", "b": "c"}, "source": "a", "target": "c"})
    >>> first = walk.step(example, walk.reset(example).state, "b")
    >>> first.observation, walk.step(example, first.state, "c")
    (';c;', Turn(state='c', observation='', reward=1.0, done=True, correct=True))
    """

    stop = ""

    def __init__(
        self,
        turns: int = 6,
        *,
        step_reward: float = 0.0,
        illegal: float = 0.0,
        towards: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ):
        self.turns, self.step_reward, self.illegal, self.towards = turns, step_reward, illegal, towards
        self.options = dict(options or {})
        check_options(tasks.graphpath, self.options, "environment 'graph_walk'")

    def expert(self, example: Example) -> list[str]:
        """The actions of a right episode, for a first, supervised stage."""
        return list(example.answer[1:])

    def examples(self, seed: int, size: int, *, split: str = "train") -> list[Example]:
        """Graphs with a source and a target."""
        return tasks.make({"name": "graphpath", "split": split, **self.options}, seed=seed, size=size)

    def reset(self, example: Example) -> Turn:
        """The source; the prompt shows the graph, and no more is needed."""
        return Turn(example.info["source"], "")

    def step(self, example: Example, state: Hashable, action: str) -> Turn:
        """Goes to the node that the action names; the observation lists the nodes that can follow."""
        info, node = example.info, action.strip()
        if len(node) != 1 or node not in info["edges"].get(state, ""):
            return Turn(state, "", self.illegal, True)
        if node == info["target"]:
            return Turn(node, "", 1.0 + self.step_reward, True, True)
        after = info["edges"].get(node, "")
        reward = self.step_reward + self.towards * self._nearer(info, str(state), node)
        return Turn(node, f";{''.join(after)};", reward, not after)

    def _nearer(self, info: Mapping[str, Any], before: str, after: str) -> int:
        ways = [shortest_paths(info["edges"], node).get(info["target"]) for node in (before, after)]
        return int(ways[0] is not None and ways[1] is not None and len(ways[1]) < len(ways[0]))


class CalculatorState(NamedTuple):
    """What a calculator has been asked so far."""

    calls: tuple[str, ...] = ()


class Calculator:
    """Problems too large to guess, and a tool: ``calc: 12*7`` is answered by its value, ``answer: 84`` ends.

    The tool takes so many operations in a call, mostly one, so that a problem needs several turns.

    Args:
        turns: actions, the answer included.
        operations: in a call, at most.
        call_reward: of a call that has a value, such as 0.1; of as many calls as the problem needs, at most.
        malformed: of an action that is neither, or of a call without a value.
        largest_call: characters of a call.
        options: of ``tasks.sums.calculator``.

    >>> tool = Calculator()
    >>> example = Example("(12+7)*3=", "57", {"calls": ["12+7", "19*3"]})
    >>> first = tool.step(example, tool.reset(example).state, "calc: 12+7")
    >>> first.observation, tool.step(example, first.state, "answer: 57").reward
    ('= 19\\n', 1.0)
    """

    stop = "\n"

    def __init__(
        self,
        turns: int = 4,
        *,
        operations: int = 1,
        call_reward: float = 0.0,
        malformed: float = 0.0,
        largest_call: int = 40,
        options: Mapping[str, Any] | None = None,
    ):
        self.turns, self.operations, self.largest_call = turns, operations, largest_call
        self.call_reward, self.malformed = call_reward, malformed
        self.options = dict(options or {})
        check_options(tasks.calculator, self.options, "environment 'calculator'")

    def expert(self, example: Example) -> list[str]:
        """The actions of a right episode: one operation after the other, then the value."""
        return [*(f"calc: {call}\n" for call in example.info["calls"]), f"answer: {example.answer}\n"]

    def examples(self, seed: int, size: int, *, split: str = "train") -> list[Example]:
        """Expressions with two or three signs."""
        return tasks.make({"name": "calculator", "split": split, **self.options}, seed=seed, size=size)

    def reset(self, example: Example) -> Turn:
        """Nothing has been asked."""
        return Turn(CalculatorState(), "\n")

    def step(self, example: Example, state: Hashable, action: str) -> Turn:
        """Answers a call, or rewards an answer."""
        assert isinstance(state, CalculatorState)
        name, _, argument = action.partition(":")
        if name.strip() == "answer":
            right = answers.equal(argument, example.answer)
            return Turn(state, "", float(right), True, right)
        if name.strip() != "calc" or len(argument) > self.largest_call:
            return Turn(state, "= ?\n", self.malformed)
        try:
            value = evaluate(argument)
            if not 1 <= len(steps(argument)) <= self.operations:
                raise NotArithmetic("another number of operations")
        except NotArithmetic:
            return Turn(state, "= ?\n", self.malformed)
        new = len(state.calls) < len(example.info["calls"]) and argument.strip() not in state.calls
        after = state._replace(calls=(*state.calls, argument.strip()))
        return Turn(after, f"= {value}\n", self.call_reward * new)


ENVIRONMENTS: dict[str, Callable[..., Environment]] = {"graph_walk": GraphWalk, "calculator": Calculator}


def build(config: Mapping[str, Any]) -> Environment:
    """Returns the environment of a config: ``name`` (of ``ENVIRONMENTS``, or an import path), and its keywords.

    Raises:
        UserError: an unknown name or keyword, with close matches.

    >>> build({"name": "graph_walk", "turns": 3}).turns
    3
    >>> build({"name": "graph_wlk"})
    Traceback (most recent call last):
    rlx.errors.UserError: unknown environment 'graph_wlk'; ... Did you mean 'graph_walk'?
    """
    options = dict(config)
    name = options.pop("name", None)
    make = by_name(name, ENVIRONMENTS, "environment")
    check_options(make, options, f"environment {name!r}")
    environment = make(**options)
    if not isinstance(environment.turns, int) or environment.turns < 1:
        raise UserError(f"environment {name!r} has turns={environment.turns!r}; there must be at least one.")
    return environment


def of_task(task: Mapping[str, Any]) -> Environment:
    """Returns the environment of a block ``task`` of a config: ``environment`` names it, the rest are its keywords.

    ``seed``, ``size`` and ``split`` are those of its examples (``starts``).
    """
    options = {key: value for key, value in task.items() if key not in ("environment", "seed", "size", "split")}
    return build({"name": task["environment"], **options})


def starts(task: Mapping[str, Any]) -> list[Example]:
    """Returns the examples that the episodes of a block ``task`` start from.

    Raises:
        UserError: the block has no ``size``.

    >>> len(starts({"environment": "calculator", "size": 4}))
    4
    """
    if not isinstance(task.get("size"), int):
        raise UserError("config.task.size is missing: an environment makes as many examples as are asked for.")
    return of_task(task).examples(task.get("seed", 0), task["size"], split=task.get("split", "train"))


def records(task: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the examples of a block ``task`` as rows: what is shown first, and the actions of an expert, if any.

    >>> records({"environment": "calculator", "size": 1})
    [{'prompt': '64+52+28+32=\\n', 'response': 'calc: 64+52\\ncalc: 116+28\\ncalc: 144+32\\nanswer: 176\\n'}]
    """
    environment = of_task(task)
    expert = getattr(environment, "expert", lambda example: [example.answer])
    return [
        {"prompt": one.prompt + environment.reset(one).observation, "response": "".join(expert(one))}
        for one in starts(task)
    ]

"""Episodes: environments are played turn by turn, in a batch of static shape, to be made arrays.

The response of an episode is its actions and, between them, the observations. Actions are scored, observations are
read but never scored: ``where`` is false there, ``turn_ids`` negative.
"""

import itertools
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.data.encode import encode_prompt
from rlx.data.tokenizers import Tokenizer, end_ids
from rlx.errors import UserError
from rlx.rollout.environments import Environment, Turn
from rlx.rollout.tasks.example import Example


class Action(NamedTuple):
    """The tokens that a policy writes in a turn, and numbers of each: ``{"rollout_logprobs": ...}``."""

    tokens: Sequence[int]
    arrays: Mapping[str, Sequence[float]] = {}


Act = Callable[[np.ndarray, np.ndarray], Sequence[Action | Sequence[int]]]
"""From contexts ``tokens [N, L]`` and ``valid [N, L]``, left-padded, to the tokens of an action for each row.

N and L are the same at every call; of rows that have ended (none of them valid but BOS) the action is not used."""


class Shape(NamedTuple):
    """The static shape of an episode: tokens of the prompt, of an action, of an observation, and turns."""

    prompt: int
    action: int
    observation: int
    turns: int

    @property
    def response(self) -> int:
        """Tokens of a response, M: as many as all turns can take."""
        return self.turns * (self.action + self.observation)


class Step(NamedTuple):
    """One turn as it was played: where, what the policy wrote, what came of it."""

    state: Hashable
    action: list[int]
    observation: list[int]
    reward: float
    arrays: dict[str, np.ndarray]


class Episode:
    """An episode while it is played, and after: ``finished`` where the environment ended it, not the last turn."""

    def __init__(self, environment: Environment, example: Example, shape: Shape, tokenizer: Tokenizer):
        self.environment, self.example, self.shape, self.tokenizer = environment, example, shape, tokenizer
        first = environment.reset(example)
        self.prompt = encode_prompt(example.prompt + first.observation, tokenizer, shape.prompt).tolist()
        self.state, self.done, self.correct, self.failure = first.state, first.done, first.correct, ""
        self.finished = first.done
        self.steps: list[Step] = []

    def context(self) -> list[int]:
        """All tokens so far: what the policy reads before it acts."""
        return [*self.prompt, *(token for step in self.steps for token in (*step.action, *step.observation))]

    def act(self, action: Action | Sequence[int]) -> None:
        """Plays one turn. An environment that raises ends the episode with reward 0, and says so in ``failure``."""
        action = action if isinstance(action, Action) else Action(action)
        kept = self._cut([int(token) for token in action.tokens][: self.shape.action])
        try:
            reads_ids = getattr(self.environment, "reads", "text") == "ids"
            read: Any = kept if reads_ids else self.tokenizer.decode(kept)
            turn = self.environment.step(self.example, self.state, read)
            hash(turn.state)
            if not np.isfinite(turn.reward):
                raise ValueError(f"the reward is {turn.reward}")
        except Exception as error:  # a user's environment may raise anything
            self.failure = f"{type(error).__name__}: {error}"
            turn = Turn(self.state, "", 0.0, True)
        ended = turn.done or len(self.steps) + 1 == self.shape.turns
        shown = [] if ended else self.tokenizer.encode(turn.observation)[: self.shape.observation]
        told = {name: np.asarray(values, np.float32)[: len(kept)] for name, values in action.arrays.items()}
        self.steps.append(Step(self.state, kept, shown, float(turn.reward), told))
        self.state, self.done, self.correct, self.finished = turn.state, ended, turn.correct, turn.done

    def _cut(self, action: list[int]) -> list[int]:
        """An action ends with EOS, or with the first token that completes the environment's ``stop``."""
        ends = end_ids(self.tokenizer)
        for place, token in enumerate(action):
            seen = action[: place + 1]
            stop = self.environment.stop
            if token in ends or (stop and stop in self.tokenizer.decode(seen)):
                return seen
        return action


def play(
    environment: Environment,
    examples: Sequence[Example],
    act: Act,
    *,
    group: int,
    shape: Shape,
    tokenizer: Tokenizer,
) -> list[list[Episode]]:
    """Returns ``group`` finished episodes from each example, all of them played side by side.

    Args:
        environment: see ``environments``.
        examples: P of them.
        act: the policy, see ``Act``; it is asked once per turn, with P * group rows.
        group: K, episodes of an example.
        shape: static shape; ``turns`` may cut those of the environment.
        tokenizer: of prompts, actions and observations.

    Raises:
        UserError: the policy gave another number of actions than rows, or a shape below 1.
    """
    if min(shape.prompt, shape.action, shape.turns, group) < 1 or shape.observation < 0:
        raise UserError(f"{shape} and group={group} must be at least 1, observation at least 0.")
    shape = shape._replace(turns=min(shape.turns, environment.turns))
    episodes = [Episode(environment, example, shape, tokenizer) for example in examples for _ in range(group)]
    for _ in range(shape.turns):
        if all(episode.done for episode in episodes):
            break
        tokens, valid = _contexts(episodes, shape, tokenizer)
        actions = act(tokens, valid)
        if len(actions) != len(episodes):
            raise UserError(f"the policy gave {len(actions)} actions for {len(episodes)} contexts.")
        for episode, action in zip(episodes, actions, strict=True):
            if not episode.done:
                episode.act(action)
    failed = [episode for episode in episodes if episode.failure]
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(episodes)} episodes were ended by an error of the environment; the first, from the "
            f"prompt {failed[0].example.prompt[:60]!r}: {failed[0].failure}",
            RuntimeWarning,
            stacklevel=2,
        )
    return [episodes[start : start + group] for start in range(0, len(episodes), group)]


def sampled(engine: Callable[..., Any], params: Any, key: Any) -> Act:
    """Returns the policy that samples with an engine of ``rlx.rollout``; it also tells the log-probabilities.

    Args:
        engine: ``(params, prompt_tokens, prompt_valid, *, group, key) -> Rollout``; its responses should be as long as
            the actions of the ``Shape``.
        params: of the policy.
        key: of jax; every turn takes its own from it.
    """
    import jax

    turns = itertools.count()

    def act(tokens: np.ndarray, valid: np.ndarray) -> list[Action]:
        drawn = engine(params, tokens, valid, group=1, key=jax.random.fold_in(key, next(turns)))
        where = np.asarray(drawn.where)[:, 0]
        told = {"old_logprobs": drawn.logprobs, "rollout_logprobs": drawn.rollout_logprobs, "entropy": drawn.entropy}
        rows = {name: np.asarray(values)[:, 0] for name, values in told.items()}
        written = np.asarray(drawn.tokens)[:, 0]
        return [
            Action(written[n][real].tolist(), {name: values[n][real] for name, values in rows.items()})
            for n, real in enumerate(where)
        ]

    return act


def demonstrations(
    environment: Any, examples: Sequence[Example], *, shape: Shape, tokenizer: Tokenizer
) -> list[list[Episode]]:
    """Returns the episode of the environment's ``expert`` from each example, ``[P][1]``: data for a supervised stage.

    Raises:
        UserError: the environment has no ``expert``, or one that needs more tokens or turns than the shape has.
    """
    if not hasattr(environment, "expert"):
        raise UserError(f"environment {type(environment).__name__} has no method expert(example) -> actions.")
    shape, found = shape._replace(turns=min(shape.turns, environment.turns)), []
    for example in examples:
        episode = Episode(environment, example, shape, tokenizer)
        for text in environment.expert(example):
            action = tokenizer.encode(text)
            if episode.done or len(action) > shape.action:
                raise UserError(f"{shape} is too small for the expert's action {text!r} on {example.prompt[:60]!r}.")
            episode.act(action)
        found.append([episode])
    return found


def _contexts(episodes: Sequence[Episode], shape: Shape, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Contexts of static shape, left-padded; those of finished episodes hold BOS alone."""
    length = shape.prompt + shape.response
    tokens = np.full((len(episodes), length), tokenizer.pad_id, np.int32)
    valid = np.zeros(tokens.shape, bool)
    for row, episode in enumerate(episodes):
        context = [tokenizer.bos_id] if episode.done else episode.context()
        tokens[row, length - len(context) :] = context
        valid[row, length - len(context) :] = True
    return tokens, valid

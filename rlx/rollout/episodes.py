"""Episodes: environments are played turn by turn, in a batch of static shape, and become the arrays of a step.

The response of an episode is its actions and, between them, the observations. Actions are scored, observations are
read but never scored: ``where`` is false there, ``turn_ids`` negative.
"""

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.data.encode import encode_prompt
from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError
from rlx.rollout.environments import Environment, Turn
from rlx.rollout.tasks.example import Example

Act = Callable[[np.ndarray, np.ndarray], Sequence[Sequence[int]]]
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


class Episode:
    """An episode while it is played, and after."""

    def __init__(self, environment: Environment, example: Example, shape: Shape, tokenizer: Tokenizer):
        self.environment, self.example, self.shape, self.tokenizer = environment, example, shape, tokenizer
        first = environment.reset(example)
        self.prompt = encode_prompt(example.prompt + first.observation, tokenizer, shape.prompt).tolist()
        self.state, self.done, self.failure = first.state, first.done, ""
        self.steps: list[Step] = []

    def context(self) -> list[int]:
        """All tokens so far: what the policy reads before it acts."""
        return [*self.prompt, *(token for step in self.steps for token in (*step.action, *step.observation))]

    def act(self, action: Sequence[int]) -> None:
        """Plays one turn. An environment that raises ends the episode with reward 0, and says so in ``failure``."""
        kept = self._cut([int(token) for token in action][: self.shape.action])
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
        self.steps.append(Step(self.state, kept, shown, float(turn.reward)))
        self.state, self.done = turn.state, ended

    def _cut(self, action: list[int]) -> list[int]:
        """An action ends with EOS, or with the first token that completes the environment's ``stop``."""
        for place, token in enumerate(action):
            seen = action[: place + 1]
            stop = self.environment.stop
            if token == self.tokenizer.eos_id or (stop and stop in self.tokenizer.decode(seen)):
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


def to_arrays(episodes: Sequence[Sequence[Episode]], index: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Returns finished episodes as the arrays of a training step.

    Args:
        episodes: ``[P][K]`` of one shape, as ``play`` gives them.
        index: ``[P]`` numbers of the examples; None counts them.

    Returns:
        ``tokens, valid, where [P, K, L + M]`` (prompts left-padded, actions scored), ``candidate_where [P, K]``,
        ``index [P]``, ``rewards`` (sum of the steps) and ``lengths [P, K]``; of response tokens ``turn_ids`` (-1 where
        nothing is scored) and ``token_rewards`` (of a step, at its last token) ``[P, K, M]``; of steps ``state_ids``
        (equal within a row where states are; -1 for none), ``step_rewards``, ``step_ends`` (place of the last token of
        the action in the response; -1 for none) and ``step_where [P, K, S]``.
    """
    shape, tokenizer = episodes[0][0].shape, episodes[0][0].tokenizer
    lead, length = (len(episodes), len(episodes[0])), shape.prompt + shape.response
    arrays = {
        "tokens": np.full((*lead, length), tokenizer.pad_id, np.int32),
        "valid": np.zeros((*lead, length), bool),
        "where": np.zeros((*lead, length), bool),
        "turn_ids": np.full((*lead, shape.response), -1, np.int32),
        "token_rewards": np.zeros((*lead, shape.response), np.float32),
        "state_ids": np.full((*lead, shape.turns), -1, np.int32),
        "step_rewards": np.zeros((*lead, shape.turns), np.float32),
        "step_ends": np.full((*lead, shape.turns), -1, np.int32),
        "step_where": np.zeros((*lead, shape.turns), bool),
    }
    for p, group in enumerate(episodes):
        known: dict[Hashable, int] = {}
        for k, episode in enumerate(group):
            _write({name: array[p, k] for name, array in arrays.items()}, episode, known)
    return arrays | {
        "candidate_where": np.ones(lead, bool),
        "index": np.arange(lead[0], dtype=np.int32) if index is None else np.asarray(index, np.int32),
        "rewards": arrays["step_rewards"].sum(-1),
        "lengths": arrays["valid"][..., shape.prompt :].sum(-1).astype(np.int32),
    }


def _write(row: dict[str, np.ndarray], episode: Episode, known: dict[Hashable, int]) -> None:
    """One episode into its row of every array; ``known`` numbers the states of its group."""
    start = episode.shape.prompt
    row["tokens"][start - len(episode.prompt) : start] = episode.prompt
    row["valid"][start - len(episode.prompt) : start] = True
    place = 0
    for turn, step in enumerate(episode.steps):
        acted, seen = place + len(step.action), place + len(step.action) + len(step.observation)
        row["tokens"][start + place : start + seen] = [*step.action, *step.observation]
        row["valid"][start + place : start + seen] = True
        row["where"][start + place : start + acted] = True
        row["turn_ids"][place:acted] = turn
        row["state_ids"][turn] = known.setdefault(step.state, len(known))
        row["step_rewards"][turn], row["step_where"][turn] = step.reward, True
        if step.action:
            row["step_ends"][turn], row["token_rewards"][acted - 1] = acted - 1, step.reward
        place = seen

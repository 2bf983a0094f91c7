"""Finished episodes as the arrays of a training step: tokens, turns, states, rewards, all of static shape."""

from collections.abc import Hashable, Sequence

import numpy as np

from rlx.rollout.episodes import Episode


def to_arrays(episodes: Sequence[Sequence[Episode]], index: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Returns finished episodes as the arrays of a training step.

    Args:
        episodes: ``[P][K]`` of one shape, as ``play`` gives them.
        index: ``[P]`` numbers of the examples; None counts them.

    Returns:
        * ``tokens, valid, where [P, K, L + M]``: prompts left-padded, actions scored; ``candidate_where [P, K]``
        * ``index [P]``; ``rewards`` (sum of the steps), ``correct``, ``finished``, ``lengths [P, K]``
        * of response tokens, ``[P, K, M]``: ``turn_ids`` (-1 where nothing is scored), ``token_rewards`` (of a step, at
          its last token), and what the policy told of its tokens (see ``Action``), 0 where nothing is scored
        * of steps, ``[P, K, S]``: ``state_ids`` (equal within an example where the states are; -1 for none),
          ``step_rewards``, ``step_ends`` (place in the response of the last token of the action; -1 for none),
          ``step_where``
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
    told = {name for group in episodes for episode in group for step in episode.steps for name in step.arrays}
    arrays |= {name: np.zeros((*lead, shape.response), np.float32) for name in sorted(told)}
    for p, group in enumerate(episodes):
        known: dict[Hashable, int] = {}
        for k, episode in enumerate(group):
            _write({name: array[p, k] for name, array in arrays.items()}, episode, known)
    return arrays | {
        "candidate_where": np.ones(lead, bool),
        "index": np.arange(lead[0], dtype=np.int32) if index is None else np.asarray(index, np.int32),
        "rewards": arrays["step_rewards"].sum(-1),
        "correct": np.array([[episode.correct for episode in group] for group in episodes], bool),
        "finished": np.array([[episode.finished for episode in group] for group in episodes], bool),
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
        for name, values in step.arrays.items():
            row[name][place:acted] = values
        row["state_ids"][turn] = known.setdefault(step.state, len(known))
        row["step_rewards"][turn], row["step_where"][turn] = step.reward, True
        if step.action:
            row["step_ends"][turn], row["token_rewards"][acted - 1] = acted - 1, step.reward
        place = seen

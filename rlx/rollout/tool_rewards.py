"""Rewards of turns that call a tool: each call matched with those of a known way to the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlx.policy.matching import Call, call_similarity, matchtir_matching_reward
from rlx.rollout.arithmetic import NotArithmetic, evaluate
from rlx.rollout.episodes import Episode


def read_call(text: str, tool: str = "calc") -> Call | None:
    """Returns a call as tool and arguments, or None of text that calls nothing.

    >>> read_call("calc: 12 + 7"), read_call("answer: 19")
    (('calc', {'expression': '12+7', 'value': '19'}), None)
    """
    name, _, argument = text.partition(":")
    if name.strip() != tool:
        return None
    expression = "".join(argument.split())
    try:
        return tool, {"expression": expression, "value": str(evaluate(expression))}
    except NotArithmetic:
        return tool, {"expression": expression}


def match_calls(episode: Episode, *, matching: str = "optimal", unmatched_penalty: float = 0.0) -> list[float]:
    """Returns rewards of the steps: how well the call of each matches one of ``example.info['calls']``.

    A step without a call keeps the reward of the environment (the answer's), and so does one of an example that knows
    no calls.

    Args:
        episode: a finished one of the environment ``calculator``, or of another with such calls.
        matching: as in ``matchtir_matching_reward``.
        unmatched_penalty: of a call without a partner.

    References:
        *MatchTIR: Fine-Grained Supervision for Tool-Integrated Reasoning via Bipartite Matching*, arXiv:2601.10712.
    """
    rewards = [step.reward for step in episode.steps]
    calls = [read_call(episode.tokenizer.decode(step.action)) for step in episode.steps]
    wanted = [read_call(f"calc: {call}") for call in episode.example.info.get("calls", ())]
    gold = [call for call in wanted if call is not None]
    made = [(place, call) for place, call in enumerate(calls) if call is not None]
    if not made or not gold:
        return rewards
    similarity = np.array([[call_similarity(call, other) for other in gold] for _, call in made])
    found = matchtir_matching_reward(similarity, matching=matching, unmatched_penalty=unmatched_penalty)
    for (place, _), reward in zip(made, found.rewards, strict=True):
        rewards[place] = float(reward)
    return rewards


def rematch(episodes: Sequence[Sequence[Episode]], **options: Any) -> None:
    """Replaces the rewards of all steps by those of ``match_calls``, before ``to_arrays``."""
    for group in episodes:
        for episode in group:
            rewards = match_calls(episode, **options)
            episode.steps = [step._replace(reward=r) for step, r in zip(episode.steps, rewards, strict=True)]

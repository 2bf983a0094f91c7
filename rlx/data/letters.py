"""Generated examples whose true reward is known: how often a response repeats the letter that its prompt names.

For smoke runs, tests and configs that must work without any file. Rows stand as they would in a JSONL file; beside the
texts they hold what a method may want to know of them, under the names of the vocabulary (``data.arrays``).
"""

import math
from typing import Any

import numpy as np


def letter_pairs(
    count: int, seed: int, *, prompts: str = "abcd", letters: str = "abcd", length: int = 6
) -> list[dict[str, Any]]:
    """Pairs, the better response chosen.

    Args:
      count: number of pairs.
      seed: of the draws.
      prompts: letters that a prompt may name.
      letters: letters of the responses, drawn with equal chances.
      length: letters in a response.

    >>> letter_pairs(1, seed=1, length=4)
    [{'prompt': 'a:', 'chosen': 'addd', 'rejected': 'cdbb'}]
    """
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        wanted = prompts[generator.integers(len(prompts))]
        first, second = ("".join(generator.choice(list(letters), length)) for _ in range(2))
        if first.count(wanted) != second.count(wanted):
            chosen, rejected = sorted((first, second), key=lambda text: -text.count(wanted))
            rows.append({"prompt": f"{wanted}:", "chosen": chosen, "rejected": rejected})
    return rows


def letter_lists(
    count: int, seed: int, *, candidates: int = 4, prompts: str = "abcd", letters: str = "abcd", length: int = 6
) -> list[dict[str, Any]]:
    """Lists of ``candidates`` responses with their true rewards as ``scores``; the other arguments are those of pairs.

    >>> letter_lists(1, seed=6, candidates=2, length=4)
    [{'prompt': 'b:', 'responses': ['ccbd', 'bcbb'], 'scores': [1.0, 3.0]}]
    """
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        wanted = prompts[generator.integers(len(prompts))]
        responses = ["".join(generator.choice(list(letters), length)) for _ in range(candidates)]
        rows.append({"prompt": f"{wanted}:", "responses": responses, "scores": [reward(wanted, r) for r in responses]})
    return rows


def reward(letter: str, response: str) -> float:
    """The true reward of a response."""
    return float(response.count(letter))


def known(row: dict[str, Any]) -> dict[str, Any]:
    """What can be known of the responses of a row, by vocabulary name, from their true rewards.

    >>> found = known({"prompt": "a:", "chosen": "aab", "rejected": "bbb"})
    >>> found["rewards"], round(found["preference_probs"], 3), found["correct"]
    ([2.0, 0.0], 0.881, [1.0, 0.0])
    """
    letter = row["prompt"][0]
    responses = row["responses"] if "responses" in row else [row["chosen"], row["rejected"]]
    rewards = [reward(letter, response) for response in responses]
    probability = 1 / (1 + math.exp(rewards[-1] - rewards[0]))
    preferences = [[1 / (1 + math.exp(b - a)) for b in rewards] for a in rewards]
    return {
        "rewards": rewards,
        "scores": rewards,
        "labels": rewards,
        "correct": [float(value == max(rewards)) for value in rewards],
        "preferences": preferences,
        "win_rates": [sum(line) / len(line) for line in preferences],
        "step_values": rewards,
        "preference_probs": probability,
        "ensemble_probs": [min(max(probability + shift, 0.0), 1.0) for shift in (-0.1, 0.0, 0.1)],
        "ensemble_logps": [
            [value - len(text) - shift for shift in (0.0, 0.5, 1.0)]
            for value, text in zip(rewards, responses, strict=True)
        ],
        "strengths": rewards[0] - rewards[-1],
        "user_ids": float("abcd".find(letter) % 2),
        "set_ids": float("abcd".find(letter) % 2),
    }

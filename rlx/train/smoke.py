"""``:smoke``: any config shrunk to seconds, on data that is generated on the spot."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rlx.errors import UserError, close_matches
from rlx.train.settings import STAGES

MODEL = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
PROMPT, RESPONSE = 8, 8


def shrink(config: ConfigDict, arg: str | None) -> ConfigDict:
    """The last line of a ``get_config(arg)``: the config itself, or its smoke version.

    The smoke version keeps stages, method and optimisers, and takes three steps each of a tiny model on
    :func:`letter_pairs` in memory.

    Args:
      config: the config in its real size.
      arg: None or ``smoke``.

    Raises:
      UserError: another argument.
    """
    if arg is None:
        return config
    if arg != "smoke":
        raise UserError(f"unknown config argument {arg!r}.{close_matches(arg, ['smoke'])} Known: smoke.")
    small: dict[str, Any] = config.to_dict()
    small["model"].update({key: value for key, value in MODEL.items() if key in small["model"]})
    small["data"] = {
        "source": "memory",
        "records": letter_pairs(24, seed=0),
        "max_prompt_length": PROMPT,
        "max_response_length": RESPONSE,
        "eval_fraction": 0.25,
        "flip_rate": small["data"].get("flip_rate", 0.0),
    }
    for stage in (small[name] for name in STAGES if name in small):
        stage.update({"steps": 3, "batch_size": 4, "log_every": 1, "eval_every": 2, "checkpoint_every": 2})
        if "warmup_steps" in stage["optimizer"]:
            stage["optimizer"]["warmup_steps"] = min(stage["optimizer"]["warmup_steps"], 1)
    return ConfigDict(small)


def letter_pairs(
    count: int, seed: int, *, prompts: str = "abcd", letters: str = "abcd", length: int = 6
) -> list[dict[str, Any]]:
    """Pairs with a known true reward: how often the response repeats the letter of the prompt.

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

"""``:smoke``: any config shrunk to seconds, on data that is generated on the spot."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from rlx.data.letters import letter_pairs
from rlx.errors import UserError, close_matches
from rlx.train.settings import STAGES

MODEL = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
PROMPT, RESPONSE = 8, 8


def shrink(config: ConfigDict, arg: str | None) -> ConfigDict:
    """The last line of a ``get_config(arg)``: the config itself, or its smoke version.

    The smoke version keeps stages, method and optimisers, and takes three steps each of a tiny model: on the first rows
    that the config makes itself or of its task, on :func:`~rlx.data.letters.letter_pairs` in the place of files.

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
    if small.get("task"):
        small["task"] |= {"size": 24}
        small["data"] |= {"eval_fraction": 0.25}
    else:
        small["data"] = _small_data(small["data"])
    for stage in (small[name] for name in STAGES if name in small):
        stage.update({"steps": 3, "batch_size": 4, "log_every": 1, "eval_every": 2, "checkpoint_every": 2})
        if "warmup_steps" in stage["optimizer"]:
            stage["optimizer"]["warmup_steps"] = min(stage["optimizer"]["warmup_steps"], 1)
        if "rollout" in stage:
            stage["rollout"] |= {"group": 4}
            if stage["rollout"].get("segments"):
                stage["rollout"]["segments"] |= {"branching": (2, 2)}
    return ConfigDict(small)


def _small_data(data: dict[str, Any]) -> dict[str, Any]:
    own = {key: data[key] for key in ("format", "arrays", "unpaired") if data.get("source") == "memory" and key in data}
    return own | {
        "source": "memory",
        "records": data["records"][:24] if data.get("source") == "memory" else letter_pairs(24, seed=0),
        "max_prompt_length": PROMPT,
        "max_response_length": RESPONSE,
        "eval_fraction": 0.25,
        "flip_rate": data.get("flip_rate", 0.0),
    }

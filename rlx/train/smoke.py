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
    of data that the config makes itself, on :func:`~rlx.data.letters.letter_pairs` in the place of files.

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
    data = small["data"]
    own = {key: data[key] for key in ("format", "arrays", "unpaired") if data.get("source") == "memory" and key in data}
    small["data"] = own | {
        "source": "memory",
        "records": data["records"][:24] if data.get("source") == "memory" else letter_pairs(24, seed=0),
        "max_prompt_length": PROMPT,
        "max_response_length": RESPONSE,
        "eval_fraction": 0.25,
        "flip_rate": data.get("flip_rate", 0.0),
    }
    for stage in (small[name] for name in STAGES if name in small):
        stage.update({"steps": 3, "batch_size": 4, "log_every": 1, "eval_every": 2, "checkpoint_every": 2})
        if "warmup_steps" in stage["optimizer"]:
            stage["optimizer"]["warmup_steps"] = min(stage["optimizer"]["warmup_steps"], 1)
    return ConfigDict(small)

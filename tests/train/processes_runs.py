"""What the processes of the tests run: ``python -m tests.train.processes_runs FOLDER [NAME ...]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.tiny_run import tiny_config

MESH = {"data": 8, "fsdp": 1, "model": 1}
MODEL = {"name": "transformer", "hidden_size": 16, "num_layers": 1, "num_heads": 2}
DOUBLE = {"dtype": "float64", "param_dtype": "float64"}


def dpo(**changes: Any) -> dict[str, Any]:
    """SFT, then DPO with a cached reference: three steps each, every one of them an epoch of its own."""
    config = tiny_config(mesh=MESH, model=MODEL | DOUBLE, reference="cached")
    for name in config["stages"]:
        config[name] |= {"batch_size": 8, "log_every": 1, "eval_every": 3}
    return config | changes


def grpo(**changes: Any) -> dict[str, Any]:
    """GRPO on a task with two updates on every batch."""
    optimizer = {"name": "adamw", "learning_rate": 1e-2, "clip_norm": 1.0}
    ascii_first = {"verifier": "matches", "options": {"pattern": r"(?s)[\x00-\x7f].*"}}
    rollout = {"group": 2, "max_new_tokens": 2, "epochs": 2, "reward": {"components": {"ascii": ascii_first}}}
    config = {
        "seed": 0,
        "tokenizer": {"name": "byte"},
        "model": MODEL | DOUBLE,
        "task": {"name": "modadd", "size": 20},
        "data": {"max_prompt_length": 8, "max_response_length": 4, "eval_fraction": 0.25},
        "mesh": MESH,
        "stages": ("rl",),
        "rl": {"steps": 2, "batch_size": 8, "optimizer": optimizer, "rollout": rollout, "log_every": 1},
        "method": {"name": "grpo"},
    }
    return config | changes


RUNS = {"dpo": dpo, "grpo": grpo}


def main(folder: Path, names: list[str]) -> None:
    """Trains the runs of these names into the folder."""
    from rlx.train import processes
    from rlx.train.main import train

    with processes.started(processes.plan_of({})):
        for name in names:
            train(RUNS[name](), folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""Sums modulo 100 through the trainer: runs of configs/rl.py that start from the same written answers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rlx.config import load
from rlx.report.rows import read_rows, write_atomically
from rlx.train.interrupts import Stopped
from rlx.train.main import train

CONFIG = Path(__file__).parents[1] / "configs" / "rl.py"
NOTE = "sft.json"
ANSWERS = {"steps": 4000, "every": 5, "loss": 0.8}
"""Of :func:`learn_answers`: how long sums stay at chance differs from seed to seed, so that few need all the steps."""


def base(size: str, seed: int, stage: str, **settings: Any) -> ConfigDict:
    """configs/rl.py, ``grpo`` or ``grpo,smoke``, with one stage, other settings of it, and all examples to train on."""
    chosen = load(f"{CONFIG}:{size}").unlock()
    other = "rl" if stage == "sft" else "sft"
    del chosen[other]
    chosen.seed, chosen.stages, chosen.data.eval_fraction = seed, (stage,), 0.0
    chosen[stage].update({"eval_every": 0, "checkpoint_every": 0, **settings})
    return chosen


def learn_answers(size: str, seed: int, own: Mapping[str, Any], folder: Path) -> int:
    """Trains on written answers until the loss of a row is below a bound; returns the steps it took.

    Args:
      size: of :func:`base`.
      seed: of the run.
      own: ``steps`` at most, ``every`` how many the loss is looked at, and its bound ``loss``.
      folder: the run directory.
    """
    note = folder / NOTE
    if not note.exists():
        chosen = base(size, seed, "sft", steps=own["steps"], log_every=own["every"])
        del chosen.method

        def enough(stage: str, step: int) -> bool:
            return step == own["steps"] or (step % own["every"] == 0 and losses(folder)[-1] < own["loss"])

        try:
            train(chosen, folder, stop=enough)
        except Stopped:
            found = losses(folder)
            write_atomically(note, json.dumps({"steps": len(found) * own["every"], "loss": found[-1]}))
    return json.loads(note.read_text(encoding="utf-8"))["steps"]


def losses(folder: Path) -> list[float]:
    """The training losses that a run has written."""
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl") if row["split"] == "train"]

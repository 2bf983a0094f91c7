"""Fixtures: a run small enough to be trained again and again: one layer, six steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def tiny_config(**changes: Any) -> dict[str, Any]:
    """SFT, then DPO with the reference in every step; ``changes`` take the place of top-level keys."""
    from rlx.data.letters import letter_pairs  # a test that needs no training need not import it

    optimizer = {"name": "adamw", "learning_rate": 1e-2, "schedule": "cosine", "warmup_steps": 1, "clip_norm": 1.0}
    stage = {
        "steps": 3,
        "batch_size": 4,
        "optimizer": optimizer,
        "eval_every": 2,
        "checkpoint_every": 2,
        "log_every": 2,
    }
    config = {
        "seed": 0,
        "tokenizer": {"name": "byte"},
        "model": {"name": "transformer", "hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "data": {
            "source": "memory",
            "records": letter_pairs(16, seed=0, length=3),
            "max_prompt_length": 3,
            "max_response_length": 4,
            "eval_fraction": 0.25,
        },
        "mesh": {"data": 1, "fsdp": 1, "model": 1, "sequence": 1},
        "stages": ("sft", "preference"),
        "sft": dict(stage),
        "preference": dict(stage),
        "method": {"name": "dpo", "beta": 0.1},
        "reference": "on_the_fly",
        "keep": 2,
    }
    return config | changes


@pytest.fixture
def tiny() -> Callable[..., dict[str, Any]]:
    """See :func:`tiny_config`."""
    return tiny_config


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted run of the tiny config; look, do not touch."""
    from rlx.report.run_report import write_report
    from rlx.train.main import train

    workdir = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_config(), workdir)
    write_report(workdir)  # the first to ask may be a test whose runs write none
    return workdir

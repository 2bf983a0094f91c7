"""Every policy method trains: two steps of the real trainer from its own config, on rewards that differ.

Batches are split in two where that is possible: what a method computes beforehand then comes from a pass of its own.
"""

import math

import jax
import numpy as np
import pytest

from configs import rl
from rlx import build
from rlx.train import trainer
from rlx.train.main import train


def residue(response, example):
    """A verifier that rewards even what an untrained policy writes: a third of the responses each gets 0, 1/2 and 1."""
    return int(np.sum(response)) % 3 / 2


residue.reads = "ids"  # type: ignore[attr-defined]


@pytest.fixture
def last_state(monkeypatch):
    """The parameters that the last stage of a run starts with and ends with."""
    found, run_stage = {}, trainer.run_stage

    def watched(stage, programs, outlets, state, batches, **left):
        found["before"] = jax.device_get(state.params)
        state, row = run_stage(stage, programs, outlets, state, batches, **left)
        found["after"] = jax.device_get(state.params)
        return state, row

    monkeypatch.setattr(trainer, "run_stage", watched)
    return found


def two_steps(name: str):
    """The smoke config of a method, from the policy's first weights, without an evaluation."""
    config = rl.get_config(f"{name},smoke").to_dict()
    config["sft"]["steps"] = 0
    config["rl"] |= {"steps": 2, "checkpoint_every": 0, "micro_batches": 2 if build(config["method"]).splittable else 1}
    rollout, verifier = config["rl"]["rollout"], f"{__name__}:residue"
    if "reward" in rollout:
        rollout["reward"]["components"]["correct"] = verifier
    else:
        rollout["verifier"] = verifier
    if "answers" in rl.reads(name):
        rollout["top_k"] = 4  # where no two answers agree, such a method has nothing to say
    config["data"]["eval_fraction"] = 0.0
    return config


@pytest.mark.parametrize("name", [*rl.NAMES, *rl.TREES])
def test_every_method_trains(name, one_model, last_state, tmp_path):
    result = train(two_steps(name), tmp_path / "run")
    assert math.isfinite(result["loss"]) and 0 < result["reward"] < 1
    assert math.isfinite(result["grad_norm"]) and result["grad_norm"] > 0
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), last_state["before"], last_state["after"])
    assert max(jax.tree.leaves(moved["policy"])) > 0

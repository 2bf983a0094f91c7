"""Episodes in the trainer: the expert's for a supervised stage, the policy's for methods of steps and turns."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import rl_turns
from rlx.errors import UserError
from rlx.rollout.environments import Turn
from rlx.rollout.tasks import Example
from rlx.train import trainer
from rlx.train.assemble import assemble
from rlx.train.episodes import Episodes
from rlx.train.interrupts import Stopped
from rlx.train.main import train


class Residues:
    """Three turns, rewarded so that even an untrained policy meets good and bad ones, and states again and again."""

    turns, stop, reads = 3, "", "ids"

    def examples(self, seed, size, *, split="train"):
        return [Example(f"{number:02d}", "a") for number in range(size)]

    def reset(self, example):
        return Turn((0, 0), ":")

    def step(self, example, state, action):
        residue = sum(action) % 3
        return Turn((state[0] + 1, residue), "ok", residue / 2, False, residue == 2)


def two_steps(name: str, task=None):
    """The smoke config of a method, from the policy's first weights, without an evaluation."""
    config = rl_turns.get_config(f"{name},smoke").to_dict()
    config["sft"]["steps"] = 0
    config["task"] = task or {"environment": f"{__name__}:Residues", "size": 24}
    config["data"] |= {"eval_fraction": 0.0, "max_prompt_length": 8}
    config["rl"] |= {"steps": 2, "checkpoint_every": 0}
    config["rl"]["rollout"] |= {"max_new_tokens": 2, "observation_tokens": 2}
    return config


@pytest.mark.parametrize("name", rl_turns.METHODS)
def test_every_method_of_turns_trains(name, one_model, tmp_path):
    result = train(two_steps(name), tmp_path)
    assert math.isfinite(result["loss"]) and 0 < result["reward"] < 3
    assert math.isfinite(result["grad_norm"]) and result["grad_norm"] > 0
    assert result["turns"] == 3 and 2 <= result["length"] <= 6


def test_a_mesh_and_micro_batches_change_nothing(one_model, tmp_path):
    whole = train(two_steps("graph_grpo_edge"), tmp_path / "whole")
    config = two_steps("graph_grpo_edge")
    config["mesh"]["data"], config["rl"]["micro_batches"] = 2, 2
    split = train(config, tmp_path / "split")
    np.testing.assert_allclose([split[name] for name in whole], [*whole.values()], rtol=1e-4, atol=1e-5)


def test_an_estimator_of_episodes_serves_any_loss(one_model, tmp_path):
    config = two_steps("gigpo")
    config["method"] = {"name": "ppo_clip_loss"}
    config["rl"]["rollout"]["advantage"] = "gigpo(gamma=1.0)"
    assert train(config, tmp_path)["grad_norm"] > 0


def source(name: str, **rollout):
    """What plays the episodes of a config, its model and a batch of prompts."""
    config = two_steps(name)
    config["rl"]["rollout"] |= rollout
    run = assemble(config)
    stage = run.stages[-1]
    train_set, _ = trainer.load_data(run, stage, Path("unused"))
    assert stage.rollout is not None
    return Episodes(run, stage.rollout, train_set, stage.reads), run, next(train_set.batches(3))


def test_episodes_are_batches_of_the_trainer():
    played, run, batch = source("gigpo")
    batch["index"][-1], batch["candidate_where"][-1] = 24, False  # a row that only fills up the batch
    found = played.collect(run.model.init(0), batch, jax.random.PRNGKey(0), group=4)
    arrays, prompt = found.batch, played.prompt_length
    assert arrays["tokens"].shape == (3, 4, prompt + 3 * 4) and "entropy" not in arrays and "edges" not in arrays
    np.testing.assert_array_equal(arrays["tokens"][:2, 0, :prompt], batch["tokens"][:2, 0])
    assert not arrays["candidate_where"][-1].any() and arrays["candidate_where"][:-1].all()
    np.testing.assert_allclose(arrays["rewards"], arrays["step_rewards"].sum(-1))
    assert not arrays["finished"].any()  # the last turn ended them
    where = arrays["where"][..., prompt:]
    assert (arrays["old_logprobs"][where] < 0).all() and (arrays["old_logprobs"][~where] == 0).all()
    assert found.metrics["turns"].value == 3 and found.tokens == where[:-1].sum() + where[-1].sum()


def test_trees_and_graphs_are_made_where_they_are_read():
    played, run, batch = source("spo_tree")
    found = played.collect(run.model.init(0), batch, jax.random.PRNGKey(0), group=2).batch
    assert found["tree_parent"].shape == (3, 7) and found["node_ids"].shape == (3, 2, 3) and "edges" not in found


def test_the_expert_is_imitated_in_what_it_does_alone(one_model, tmp_path):
    config = two_steps("gigpo", {"environment": "calculator", "size": 8, "options": {"counts": (3,), "largest": 9}})
    config["data"]["max_prompt_length"] = 16
    run = assemble(config | {"sft": config["sft"] | {"steps": 2}})
    train_set, _ = trainer.load_data(run, run.stages[0], tmp_path)
    batch = next(train_set.batches(8))
    text = [
        run.tokenizer.decode(t[w].tolist()) for t, w in zip(batch["tokens"][:, 0], batch["where"][:, 0], strict=True)
    ]
    shown = [
        run.tokenizer.decode(t[v].tolist()) for t, v in zip(batch["tokens"][:, 0], batch["valid"][:, 0], strict=True)
    ]
    assert all(one.count("calc: ") == 2 and "answer: " in one and "= " not in one for one in text)
    assert all(one.count("\n= ") == 2 for one in shown)
    assert train_set.fingerprint != train_set.source.content


def test_a_stopped_run_goes_on_to_the_same_numbers(one_model, tmp_path):
    config = two_steps("epo")
    config["rl"]["log_every"] = 1
    train(config, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, tmp_path / "stopped", stop=lambda stage, step: step == 1)
    train(config, tmp_path / "stopped")
    whole, stopped = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "stopped")
    )
    assert stopped == whole


def test_messages_name_the_culprit():
    def wrong(task=None, data=None, **rollout):
        config = two_steps("gigpo", task)
        config["rl"]["rollout"] |= rollout
        config["data"] |= data or {}
        assemble(config)

    with pytest.raises(UserError, match="unknown environment 'graph_wlk'; .* Did you mean 'graph_walk'"):
        wrong({"environment": "graph_wlk", "size": 8})
    with pytest.raises(UserError, match="config.task.size is missing"):
        wrong({"environment": "graph_walk"})
    with pytest.raises(UserError, match="lacks the key 'observation_tokens', which episodes need"):
        wrong(observation_tokens=None)
    with pytest.raises(UserError, match="config.rl.rollout.turns must be a whole number of at least 1"):
        wrong(turns=0)
    with pytest.raises(UserError, match="rollout.verifier is not used: the environment rewards each action itself"):
        wrong(verifier="exact")
    with pytest.raises(UserError, match="unknown 'optimum'. Did you mean 'optimal'"):
        wrong(matching="optimum")
    with pytest.raises(UserError, match="rollout.observation_tokens is not used: config.task names no environment"):
        wrong({"name": "modadd"})
    with pytest.raises(UserError, match="config.task makes the data: remove config.data.max_response_length"):
        wrong(data={"max_response_length": 8})
    with pytest.raises(UserError, match="unknown method 'gipgo'. Did you mean 'gigpo'"):
        rl_turns.get_config("gipgo")

"""Reinforcement learning as a stage: every step draws, verifies and updates; a run resumes to the same numbers."""

import json

import jax
import numpy as np
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.rollout import Rollout
from rlx.train.assemble import assemble
from rlx.train.interrupts import Stopped
from rlx.train.lessons import make_estimator
from rlx.train.main import train
from rlx.train.responses import training_batch
from rlx.train.restore import restore
from rlx.train.rollout_settings import RolloutSettings
from rlx.train.rollouts import minibatches

pytestmark = pytest.mark.usefixtures("one_model")


def config(name: str = "grpo", **rollout):
    found = rl.get_config(f"{name},smoke").to_dict()
    found["rl"]["rollout"] |= rollout
    return found


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_reports_reward_entropy_and_length(tmp_path):
    result = train(config(epochs=2, minibatches=2), tmp_path / "run")
    assert {"accuracy", "reward", "sft/loss"} <= set(result)
    row = next(row for row in rows(tmp_path / "run") if row["stage"] == "rl" and row["split"] == "train")
    of_responses = {"reward", "pass_at_4", "length", "finished", "rollout_entropy", "entropy_late", "entropy_window"}
    of_updates = {"loss", "old_kl_k3", "grad_norm", "covariance", "clip_share_high", "log_ratio_max", "selected"}
    assert of_responses | of_updates | {"staleness"} <= set(row)
    assert abs(row["old_kl_k3"]) < 1 and 0 <= row["reward"] <= 1


MANY = {"minibatches": 2, "epochs": 2, "sync_every": 2, "control": {"entropy": "step(0.5, 0.1, initial=0.2)"}}
"""What has a state of its own in a run: the order of minibatches, a stale sampler, a controller."""


def longer():
    """Six steps of four prompts each, from 18: the second epoch begins within the fifth."""
    settings = config(**MANY)
    settings["sft"]["steps"] = 2
    settings["rl"] |= {"steps": 6, "log_every": 2, "eval_every": 3, "checkpoint_every": 4}
    return settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(longer(), folder)
    return folder


@pytest.mark.parametrize("moment", [("sft", 1), ("sft", 2), ("rl", 1), ("rl", 4), ("rl", 5), ("rl", 6)])
def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path, whole, moment):
    with pytest.raises(Stopped):
        train(longer(), tmp_path, stop=lambda stage, step: (stage, step) == moment)
    train(longer(), tmp_path)
    assert rows(tmp_path) == rows(whole)
    ours, theirs = (restore(folder).state for folder in (tmp_path, whole))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_batch_has_the_prompt_before_every_response():
    prompt = {
        "tokens": np.array([[[0, 5, 6]]]), "valid": np.array([[[False, True, True]]]),
        "candidate_where": np.ones((1, 1), bool), "index": np.array([3]),
    }  # fmt: skip
    where = np.array([[[True, True], [True, False]]])
    numbers = np.where(where, -1.0, 0.0)
    drawn = Rollout(np.array([[[7, 2], [2, 0]]]), where, where.sum(-1), where.any(-1), numbers, numbers, -numbers)
    batch = training_batch(prompt, drawn, np.array([[1.0, 0.0]], np.float32))
    np.testing.assert_array_equal(batch["tokens"], [[[0, 5, 6, 7, 2], [0, 5, 6, 2, 0]]])
    np.testing.assert_array_equal(batch["where"][0, 1], [False, False, False, True, False])
    np.testing.assert_array_equal(batch["valid"][0, 1], [False, True, True, True, False])
    advantages = make_estimator("dr_grpo")(batch, jax.random.PRNGKey(0))
    np.testing.assert_allclose(advantages[..., 0], [[0.5, -0.5]])


def test_a_stale_sampler_a_composed_reward_controllers_and_dynamic_sampling(tmp_path):
    own = {
        "sync_every": 2,
        "keep": 2,
        "control": {"kl": "adaptive_kl(0.01, 10, initial=0.1)", "entropy": "step(0.5, 0.1, initial=0.2)"},
        "reward": {"components": {"correct": "exact", "short": {"penalty": "linear", "weight": 0.1}}},
    }
    settings = config(**own)
    settings["rl"] |= {"steps": 3, "log_every": 1}
    train(settings, tmp_path)
    found = [row for row in rows(tmp_path) if row["stage"] == "rl" and row["split"] == "train"]
    assert [row["staleness"] for row in found] == [0, 1, 0]
    assert {"reward/correct", "reward/short", "kl_coefficient", "entropy_coefficient"} <= set(found[0])
    assert found[0]["reward/short"] < 0
    assert (tmp_path / "speed.jsonl").read_text().count("sample_tokens_per_s") >= 3


SELF_PLAY = {"opponents": {"update": "snapshot", "every": 1, "count": 2}}


@pytest.mark.parametrize(
    ("name", "roles"),
    [("mnpo", SELF_PLAY), ("egpo_llm", {}), ("online_ipo", {}), ("nash_md", {})],
)
def test_methods_that_compare_responses_learn_from_groups(tmp_path, name, roles):
    settings = config(verifier="tests.train.rollouts_test:even")
    settings |= {"method": {"name": name}, "policies": roles}
    settings["rl"] |= {"steps": 2, "log_every": 1}
    train(settings, tmp_path)
    found = [row for row in rows(tmp_path) if row["stage"] == "rl" and row["split"] == "train"]
    assert all(np.isfinite(row["loss"]) for row in found) and found[0]["grad_norm"] > 0


def test_a_value_head_learns_the_returns(tmp_path):
    critic = {"coefficient": 1.0, "clip": 10.0}
    own = {"critic": critic, "epochs": 4, "advantage": "gae(1.0, 0.95)"}
    settings = config(verifier="tests.train.rollouts_test:even", **own)
    settings["model"]["head"] = "scalar"
    settings["method"] = {"name": "ppo_clip_loss"}
    settings["rl"] |= {"steps": 6, "log_every": 1}
    train(settings, tmp_path)
    found = [row["value_error"] for row in rows(tmp_path) if row["stage"] == "rl" and row["split"] == "train"]
    assert found[-1] < found[0] / 2


def test_a_teacher_is_distilled_on_the_responses_of_the_policy(tmp_path):
    settings = config()
    settings["method"] = {"name": "hinton_kd"}
    train(settings, tmp_path / "teacher")
    settings["policies"] = {"teacher": {"run": str(tmp_path / "teacher")}}
    settings["seed"] = 1
    train(settings, tmp_path / "student")
    found = [row for row in rows(tmp_path / "student") if row["stage"] == "rl" and row["split"] == "train"]
    assert found[-1]["loss"] < found[0]["loss"]


def even(response, example):
    """A reward that varies from the start."""
    return float(len(response.encode()) % 2 == 0)


def test_a_shared_prompt_changes_no_number_of_a_run(tmp_path):
    for name, shared in (("plain", False), ("shared", True)):
        settings = config(shared_prefix=shared)
        settings["sft"]["steps"], settings["rl"]["steps"] = 1, 2
        train(settings, tmp_path / name)
    for plain, shared in zip(rows(tmp_path / "plain"), rows(tmp_path / "shared"), strict=True):
        np.testing.assert_allclose(
            *([v for v in row.values() if isinstance(v, float)] for row in (plain, shared)), atol=1e-5
        )


def test_groups_may_be_the_leaves_of_trees(tmp_path):
    settings = config(forks={"num_forks": 1, "num_branches": 1}, verifier="tests.train.rollouts_test:even")
    settings["sft"]["steps"], settings["rl"]["steps"] = 0, 2
    train(settings, tmp_path)
    assert {"pass_at_4", "loss"} <= set(rows(tmp_path)[0])


def test_minibatches_are_a_partition_of_every_epoch():
    found = minibatches(8, RolloutSettings(max_new_tokens=1, epochs=2, minibatches=4), jax.random.PRNGKey(0))
    assert [len(part) for part in found] == [2] * 8
    assert all(sorted(np.concatenate(found[i : i + 4])) == list(range(8)) for i in (0, 4))


def test_messages_name_the_culprit():
    def wrong(**rollout):
        return assemble(config(**rollout))

    with pytest.raises(UserError, match="config.rl.rollout has an unknown key 'grp'. Did you mean 'group'"):
        wrong(grp=4)
    with pytest.raises(
        UserError,
        match=r"config\.rl\.batch_size=4 must be a multiple of .* x rollout\.minibatches = 3",
    ):
        wrong(minibatches=3)
    with pytest.raises(UserError, match="config.rl.rollout.keep=5 is more than config.rl.batch_size"):
        wrong(keep=5)
    with pytest.raises(UserError, match="a tree with 2 forks of 1 branches .* and is 4"):
        wrong(forks={"num_forks": 2, "num_branches": 1})
    with pytest.raises(UserError, match="forks has an unknown key 'num_fork'. Did you mean 'num_forks'"):
        wrong(forks={"num_fork": 2})
    with pytest.raises(UserError, match="has both reward and verifier"):
        wrong(verifier="exact", reward={"verifier": "exact"})
    with pytest.raises(UserError, match="ppo reads values: set config.rl.rollout.critic"):
        bad = config()
        bad["method"] = {"name": "ppo"}
        assemble(bad)
    with pytest.raises(UserError, match="critic trains a scalar head, which the model lacks"):
        wrong(critic={"coefficient": 0.5})
    with pytest.raises(UserError, match="critic has an unknown key 'clp'. Did you mean 'clip'"):
        wrong(critic={"clp": 0.5})
    with pytest.raises(UserError, match="unknown verifier 'exat'"):
        wrong(reward={"verifier": "exat"})
    with pytest.raises(UserError, match="reads values, which responses alone do not give"):
        make_estimator("gae")
    with pytest.raises(UserError, match="config.task makes the data: remove config.data.path"):
        bad = config()
        bad["data"]["path"] = "file.jsonl"
        assemble(bad)
    with pytest.raises(UserError, match="unknown method 'grop'"):
        rl.get_config("grop")
    with pytest.raises(UserError, match="config.sft.rollout is not used"):
        bad = config()
        bad["sft"]["rollout"] = {"group": 2}
        assemble(bad)

"""Learned rewards: from a stage of the same run, or from another run; runs that start from the policy of another."""

import json

import numpy as np
import pytest

from configs import rl
from rlx.errors import UserError
from rlx.rollout.tasks import Example
from rlx.train.assemble import assemble
from rlx.train.interrupts import Stopped
from rlx.train.main import train
from rlx.train.reward_models import RewardModel, reward_model_of
from rlx.train.sharding import make_mesh

pytestmark = pytest.mark.usefixtures("one_model")

PAIRS = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": "?"} for a in range(4) for b in range(4)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return str(path)


def with_reward_stage(pairs, **component):
    config = rl.get_config("grpo,smoke").to_dict()
    config["stages"], config["model"]["head"] = ("sft", "reward", "rl"), "scalar"
    config["sft"]["steps"] = 2
    config["reward"] = {
        **config["sft"],
        "steps": 3,
        "until_loss": None,
        "method": {"name": "bradley_terry_rm"},
        "data": {"source": "jsonl", "path": pairs, "records": None},
    }
    learned = {"model": "reward", "weight": 0.1, "options": component}
    config["rl"]["rollout"]["reward"] = {"components": {"correct": "exact", "learned": learned}}
    config["rl"] |= {"steps": 2, "log_every": 1}
    return config


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(with_reward_stage(pairs), folder)
    return folder


def test_a_reward_stage_rewards_the_responses_of_the_policy_before_it(whole):
    found = rows(whole)
    assert list(dict.fromkeys(row["stage"] for row in found)) == ["sft", "reward", "rl"]
    learned = [row["reward/learned"] for row in found if row["stage"] == "rl" and row["split"] == "train"]
    assert all(np.isfinite(learned)) and any(learned)


@pytest.mark.parametrize("moment", [("reward", 1), ("reward", 3), ("rl", 1)])
def test_a_run_with_a_reward_stage_goes_on_at_every_phase(tmp_path, whole, pairs, moment):
    with pytest.raises(Stopped):
        train(with_reward_stage(pairs), tmp_path, stop=lambda stage, step: (stage, step) == moment)
    train(with_reward_stage(pairs), tmp_path)
    assert rows(tmp_path) == rows(whole)


def test_a_run_starts_from_the_policy_of_another_and_is_rewarded_by_its_model(tmp_path, whole, pairs):
    config = with_reward_stage(pairs)
    del config["reward"]
    config |= {"stages": ("sft", "rl"), "start": str(whole)}
    config["sft"]["steps"] = 0
    config["rl"]["rollout"]["reward"]["components"]["learned"]["model"] = str(whole)
    train(config, tmp_path / "next")
    assert rows(tmp_path / "next")[0]["stage"] == "rl"
    with pytest.raises(UserError, match=r"differ in \['layers'\]\['1'\]"):
        train(config | {"model": config["model"] | {"num_layers": 2}}, tmp_path / "other")


def test_a_win_rate_is_a_mean_over_the_group(whole):
    parts = reward_model_of(str(whole)), (8, 3), make_mesh({})
    responses, examples = [[[50], [51, 52], [53]], [[50], [50], [50]]], [Example("1+1=", "2"), Example("", "")]
    scores = RewardModel(*parts)(responses, examples, np.array([True, False]))
    wins = RewardModel(*parts, win_rate=True)(responses, examples)
    assert (scores[1] == 0).all() and np.ptp(scores[0]) > 0
    np.testing.assert_array_equal(np.argsort(wins[0]), np.argsort(scores[0]))
    np.testing.assert_allclose(wins.mean(-1), 0.5, atol=1e-6)


def with_preference_model(pairs, method):
    config = with_reward_stage(pairs)
    config["model"]["head"] = "none"
    config["reward"]["method"] = {"name": "gpm", "dimension": 4, "tau": 1.0}
    del config["rl"]["rollout"]["reward"]
    config["method"] = {"name": method}
    config["rl"]["rollout"]["preference"] = "reward"
    return config


def test_pairs_are_chosen_by_a_learned_preference_model_bitwise_over_a_stop(tmp_path, pairs):
    config = with_preference_model(pairs, "dpo")
    config["sft"]["steps"] = 1
    train(config, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, tmp_path / "part", stop=lambda stage, step: (stage, step) == ("rl", 1))
    train(config, tmp_path / "part")
    assert rows(tmp_path / "part") == rows(tmp_path / "whole")
    learned = reward_model_of(str(tmp_path / "whole"))
    assert learned.method.name == "gpm" and learned.params["method"]["head"].shape == (16, 4)
    model = RewardModel(learned, (8, 3), make_mesh({}), win_rate=True)
    responses, examples = [[[50], [51, 52], [53]]], [Example("1+1=", "2")]
    found = model.compare(model._batch(responses, examples))
    beats = found["preferences"]
    np.testing.assert_allclose(beats + beats.swapaxes(-1, -2), 1, atol=1e-6)
    np.testing.assert_allclose(model(responses, examples), found["win_rates"])
    assert np.ptp(found["win_rates"]) > 0


def test_a_preference_model_scores_nothing_on_its_own(pairs):
    config = with_preference_model(pairs, "grpo")
    component = {"model": "reward"}
    config["rl"]["rollout"] |= {"preference": "order", "reward": {"components": {"wins": component}}}
    with pytest.raises(UserError, match=r"gpm trains a preference model, .* set options=\{'win_rate': True\}"):
        assemble(config)
    component["options"] = {"win_rate": True}
    assemble(config)


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        (
            "bradly_terry",
            "is neither one of order, bradley_terry, reward nor a run directory. Did you mean",
        ),
        ("/", r"config.rl.rollout.preference names the run /, which is no run directory"),
    ],
)
def test_a_model_of_preferences_must_be_there(pairs, preference, message):
    config = with_preference_model(pairs, "dpo")
    config["rl"]["rollout"]["preference"] = preference
    with pytest.raises(UserError, match=message):
        assemble(config)


def test_messages_name_the_culprit(pairs):
    def wrong(**changes):
        return assemble(with_reward_stage(pairs) | changes)

    config = with_reward_stage(pairs)
    with pytest.raises(UserError, match="config.reward lacks the key 'method': config.method is that of 'rl'"):
        wrong(reward={**config["reward"], "method": None})
    with pytest.raises(UserError, match=r"config\.start names the run /nowhere, which is no run directory"):
        wrong(start="/nowhere")
    with pytest.raises(UserError, match=r"the model of the stage 'reward', which config\.reward\.steps=0 leaves out"):
        wrong(reward={**config["reward"], "steps": 0})
    del config["reward"]
    with pytest.raises(UserError, match="names the model of the stage 'reward', which config.stages lacks"):
        assemble(config | {"stages": ("sft", "rl")})

"""``rlx.evaluate``: a checkpoint scores what its run said it scores."""

import json

import pytest

from configs import rl, rl_turns
from rlx import evaluate
from rlx.data.letters import letter_pairs
from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.main import train
from rlx.train.restore import restore

METRICS = ("reward_accuracy", "reward_accuracy_low", "loss", "reward_margin", "examples")


def test_the_last_checkpoint_scores_what_the_run_reported(finished, capsys):
    row = evaluate.evaluate(restore(finished))
    reported = json.loads((finished / "result.json").read_text())["metrics"]
    assert {name: row[name] for name in METRICS} == {name: reported[name] for name in METRICS}
    assert evaluate.cli([f"--checkpoint={finished}"]) == 0
    out = capsys.readouterr().out
    assert "reward_accuracy" in out and "held-out examples" in out


@pytest.mark.parametrize("config", [rl.get_config("smoke"), rl_turns.get_config("smoke")], ids=["rl", "rl_turns"])
def test_a_run_with_rollouts_scores_what_it_reported(config, tmp_path):
    reported = train(config.to_dict() | {"keep": 4}, tmp_path)
    assert evaluate.evaluate(restore(tmp_path)) == {key: reported[key] for key in reported if "/" not in key}
    sft = evaluate.evaluate(restore(tmp_path / "checkpoints" / "00000003"))
    assert sft["loss"] == pytest.approx(reported["sft/loss"], rel=1e-6)
    with pytest.raises(UserError, match="--data=other.jsonl is not used: the examples of the run"):
        evaluate.evaluate(restore(tmp_path), "other.jsonl")


def test_an_earlier_checkpoint_by_its_path(finished):
    row = evaluate.evaluate(restore(finished / "checkpoints" / "00000005"))
    logged = [row for row in read_rows(finished / "metrics.jsonl") if row["split"] == "eval"]
    earlier = next(row for row in logged if row["stage"] == "preference" and row["step"] == 2)
    assert row["loss"] == earlier["loss"]


def test_another_file_is_evaluated_whole(finished, tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in letter_pairs(7, seed=9, length=3)))
    row = evaluate.evaluate(restore(finished), str(file))
    assert row["examples"] == 7 and 0 <= row["reward_accuracy"] <= 1


def test_a_cached_reference_is_there_for_new_data(tiny, tmp_path):
    config = tiny(stages=("preference",), reference="cached")
    del config["sft"]
    metrics = train(config, tmp_path / "run")
    assert evaluate.evaluate(restore(tmp_path / "run"))["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("path", "message"),
    [("nothing", "is no run directory"), ("checkpoints/00000099", r"no such checkpoint .* it has 00000005, 00000006")],
)
def test_a_wrong_path_is_named(finished, path, message):
    with pytest.raises(UserError, match=message):
        restore(finished / path)
    assert evaluate.cli([f"--checkpoint={finished / path}"]) == 2

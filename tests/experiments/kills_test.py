"""Killed at random moments, real runs of one and of two processes end with the same bits; what differs is named."""

import json
import shutil

import pytest

from experiments import kills

OPTIONS = ["--config=configs/rl.py:grpo,smoke", "--config.rl.steps=8", "--config.data.eval_fraction=0.0"]


def test_killed_runs_end_with_the_same_bits(tmp_path, capsys):
    assert kills.main([*OPTIONS, f"--workdir={tmp_path / 'kills'}", "--kills=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert (found["kills"], found["differing"]) == (3, []) and found["runs"] >= 1
    assert [line.split(":")[0] for line in lines if line.startswith("kill ")] == ["kill 1", "kill 2", "kill 3"]
    whole, other = tmp_path / "kills" / "whole", tmp_path / "other"
    shutil.copytree(whole, other)
    with (other / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    (other / "result.json").write_text('{"metrics": {}}', encoding="utf-8")
    shutil.rmtree(sorted((other / "checkpoints").glob("0*"))[-1])
    assert kills.differing(other, whole)[:3] == ["metrics.jsonl", "result.json", ".step"]


def test_a_run_of_two_processes_ends_with_the_same_bits(tmp_path, capsys):
    options = ["--config=configs/dpo_hh.py:smoke", "--config.sft.steps=0", "--config.preference.checkpoint_every=1"]
    assert kills.main([*options, f"--workdir={tmp_path / 'kills'}", "--kills=1", "--processes=2"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["kills"], found["processes"], found["differing"]) == (1, 2, [])


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(kills.UserError, match=r"killed failed:\nerror: unknown method 'grop'. Did you mean 'grpo'"):
        kills.run(["--config=configs/rl.py:grop"], tmp_path / "killed")

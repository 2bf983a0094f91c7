"""Runs end to end: what they leave behind, and that killing them at any step changes nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.interrupts import Stopped
from rlx.train.main import cli, train
from rlx.train.restore import restore


class Killed(Exception):
    """Stands for a kill: nothing is saved after it."""


def kill_at(stage, step):
    def stop(at_stage, at_step):
        if (at_stage, at_step) == (stage, step):
            raise Killed
        return False

    return stop


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def leaves(workdir):
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(restore(workdir).state)]


def assert_same_run(workdir, other):
    assert result(workdir)["metrics"] == result(other)["metrics"]
    for name in ("metrics.jsonl", "table.csv"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes()
    for ours, theirs in zip(leaves(workdir), leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_leaves_everything_behind(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png", "result.json", "checkpoints"} <= names
    found = result(finished)
    assert {"metrics", "steps", "wall_s", "versions"} == set(found) and found["steps"] == 6
    metrics = found["metrics"]
    assert metrics["reward_accuracy_low"] <= metrics["reward_accuracy"] <= metrics["reward_accuracy_high"]
    assert metrics["examples"] == 4 and {"loss", "sft/loss"} <= set(metrics)
    places = [(row["stage"], row["split"], row["step"]) for row in read_rows(finished / "metrics.jsonl")]
    one = [("train", 2), ("eval", 2), ("train", 3), ("eval", 3)]
    assert places == [(stage, *place) for stage in ("sft", "preference") for place in one]


def test_training_lowers_the_loss_and_hands_the_policy_on(finished):
    rows = read_rows(finished / "metrics.jsonl")
    sft = [row["loss"] for row in rows if row["stage"] == "sft" and row["split"] == "eval"]
    assert sft[-1] < sft[0] < np.log(259)
    first = next(row for row in rows if row["stage"] == "preference")
    assert first["chosen_logps"] > -4 * sft[0]  # the policy that SFT left, not a fresh one


def test_a_finished_run_is_not_run_again(finished, tiny):
    before = (finished / "metrics.jsonl").stat().st_mtime_ns
    assert train(tiny(), finished) == result(finished)["metrics"]
    assert (finished / "metrics.jsonl").stat().st_mtime_ns == before


def test_killed_at_many_steps_the_result_is_bitwise_the_same(finished, tiny, tmp_path):
    workdir = tmp_path / "run"
    for stage, step in [("sft", 1), ("sft", 3), ("preference", 1), ("preference", 2), ("preference", 3)]:
        with pytest.raises(Killed):
            train(tiny(), workdir, stop=kill_at(stage, step))
        assert not (workdir / "result.json").exists()
    train(tiny(), workdir)
    assert_same_run(workdir, finished)


def test_stop_saves_the_step_it_is_called_after(finished, tiny, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(Stopped, match="saved step 1 of the stage 'sft'"):
        train(tiny(), workdir, stop=lambda stage, step: True)
    assert [path.name for path in (workdir / "checkpoints").glob("0*")] == ["00000001"]
    seen = []
    train(tiny(), workdir, stop=lambda stage, step: seen.append((stage, step)))
    assert seen[0] == ("sft", 2)
    assert_same_run(workdir, finished)


def start(config_file, workdir):
    command = [sys.executable, "-W", "error", "-m", "rlx.train", f"--config={config_file}", f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(process, path: Path, count: int):
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < count):
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]


def test_signals_to_the_real_command(finished, tiny, tmp_path):
    """SIGTERM saves and exits 0, SIGKILL just ends it; the same command goes on, to the same bits."""
    config_file, workdir = tmp_path / "config.py", tmp_path / "run"
    config_file.write_text(f"def get_config():\n    return {tiny()!r}\n")
    process = start(config_file, workdir)
    wait_for_rows(process, workdir / "metrics.jsonl", 1)
    process.send_signal(signal.SIGTERM)
    assert "the same command goes on from it" in process.communicate()[1]
    assert process.returncode == 0 and not (workdir / "result.json").exists()
    process = start(config_file, workdir)
    wait_for_rows(process, workdir / "metrics.jsonl", 5)
    process.kill()
    process.communicate()
    process = start(config_file, workdir)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on from step" in err and "reward_accuracy" in out
    assert_same_run(workdir, finished)


def test_another_config_is_refused_with_what_differs(finished, tiny):
    with pytest.raises(UserError, match=r"method\.beta: 0\.1 -> 0\.5.*--force"):
        train(tiny(method={"name": "dpo", "beta": 0.5}), finished)


def test_what_changes_no_result_may_change(finished, tiny, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished, workdir)
    assert train(tiny(keep=1), workdir) == result(finished)["metrics"]


def test_force_goes_on_with_another_config(finished, tiny, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished, workdir)
    longer = tiny()
    longer["preference"] = longer["preference"] | {"steps": 4}
    train(longer, workdir, force=True)
    assert result(workdir)["steps"] == 7
    assert read_rows(workdir / "metrics.jsonl")[-1]["step"] == 4


def test_a_checkpoint_of_another_model_is_refused(finished, tiny, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished, workdir)
    wider = tiny()
    wider["model"] = wider["model"] | {"hidden_size": 32}
    with pytest.raises(UserError, match=r"params/policy/.* there and float32.* here, so the model differs"):
        train(wider, workdir, force=True)


def test_a_lost_reference_is_missed(finished, tiny, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "checkpoints" / "reference")
    longer = tiny()
    longer["preference"] = longer["preference"] | {"steps": 4}
    with pytest.raises(UserError, match="reference is gone"):
        train(longer, workdir, force=True)


def test_a_loss_that_is_not_finite_ends_the_run(tiny, tmp_path):
    config = tiny(stages=("sft",))
    for key in ("preference", "method", "reference"):
        del config[key]
    optimizer = {"name": "sgd", "learning_rate": 1e30}
    config["sft"] = config["sft"] | {"optimizer": optimizer, "checkpoint_every": 1}
    with pytest.raises(UserError, match=r"(loss|grad_norm) is (nan|inf) at step \d of the stage 'sft'"):
        train(config, tmp_path / "run")
    assert all(np.isfinite(leaf).all() for leaf in leaves(tmp_path / "run")), "the last checkpoint is from before"


def test_errors_of_the_command_are_one_line(tmp_path, capsys):
    assert cli(["--config=configs/none.py", f"--workdir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_devices_and_micro_batches_change_nothing_but_the_last_digits(finished, tiny, tmp_path):
    config = tiny(mesh={"data": 2, "fsdp": 1, "model": 1})
    config["preference"] = config["preference"] | {"micro_batches": 2}
    train(config, tmp_path / "run")
    ours, theirs = (read_rows(folder / "metrics.jsonl") for folder in (tmp_path / "run", finished))
    for row, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(row["loss"], other["loss"], rtol=1e-5)


def test_a_run_goes_on_on_another_mesh(finished, tiny, tmp_path, capsys):
    with pytest.raises(Stopped):
        train(tiny(), tmp_path, stop=lambda stage, step: (stage, step) == ("preference", 1))
    train(tiny(mesh={"data": 2, "fsdp": 2, "model": 1}), tmp_path)
    assert "going on elsewhere (mesh.data: 1 -> 2, mesh.fsdp: 1 -> 2" in capsys.readouterr().err
    ours, theirs = (read_rows(folder / "metrics.jsonl") for folder in (tmp_path, finished))
    for row, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(row["loss"], other["loss"], rtol=1e-5)


def test_a_stage_may_end_at_a_loss(tiny, tmp_path):
    def config():
        found = tiny()
        found["sft"] |= {"steps": 6, "log_every": 2, "until_loss": 1e9}
        return found

    train(config(), tmp_path / "whole")
    rows = read_rows(tmp_path / "whole" / "metrics.jsonl")
    assert max(row["step"] for row in rows if row["stage"] == "sft") == 2
    with pytest.raises(Stopped):  # the checkpoint is that of the end, and the stage is not gone on with
        train(config(), tmp_path / "stopped", stop=lambda stage, step: (stage, step) == ("sft", 2))
    train(config(), tmp_path / "stopped")
    assert read_rows(tmp_path / "stopped" / "metrics.jsonl") == rows


def test_a_stage_may_read_other_data(tiny, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "abc"}\n' * 8)
    config = tiny()
    del config["preference"], config["method"], config["reference"]
    own = {"source": "jsonl", "path": str(text), "records": None, "eval_fraction": 0.0}
    config |= {"stages": ("sft",), "sft": config["sft"] | {"data": own}}
    metrics = train(config, tmp_path / "run")
    assert "examples" not in metrics and np.isfinite(metrics["loss"]), "nothing held out: the last training row"

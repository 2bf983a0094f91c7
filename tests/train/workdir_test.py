"""The run directory: one run at a time, one config, and what is damaged is said."""

import json
import os
import socket
import subprocess
import sys

import pytest

from rlx.errors import UserError
from rlx.train.main import train
from rlx.train.workdir import Workdir, versions

pytestmark = pytest.mark.usefixtures("one_model")


def test_a_second_run_is_refused_and_a_third_may_follow(tiny, tmp_path):
    with Workdir(tmp_path), pytest.raises(UserError, match=r"in use by process \d+"):
        train(tiny(), tmp_path)
    with Workdir(tmp_path):
        pass


def test_a_second_process_names_the_first_and_changes_nothing(tiny, tmp_path):
    config_file, workdir = tmp_path / "config.py", tmp_path / "run"
    config_file.write_text(f"def get_config():\n    return {tiny(seed=1)!r}\n")
    with Workdir(workdir) as folder:
        folder.claim(tiny())
        (workdir / "metrics.jsonl").write_text('{"stage": "sft", "step": 1}\n')
        before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in workdir.iterdir()}
        command = [sys.executable, "-m", "rlx.train", f"--config={config_file}", f"--workdir={workdir}", "--force"]
        found = subprocess.run(command, capture_output=True, text=True)
        assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in workdir.iterdir()} == before
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert found.stderr == f"error: workdir {workdir} is in use by {holder}: wait for its end, or stop it.\n"
    assert found.returncode == 2


def test_a_lock_of_the_dead_is_taken_over(tmp_path):
    (tmp_path / ".train.lock").write_text("process 999999 on nowhere\n")
    with Workdir(tmp_path):
        pass


def test_claim_compares_configs(tmp_path):
    with Workdir(tmp_path) as folder:
        folder.claim({"seed": 0, "sft": {"steps": 1, "log_every": 1}})
        folder.claim({"seed": 0, "sft": {"steps": 1, "log_every": 5}})
        (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 1}\n')
        with pytest.raises(UserError, match=r"seed: 0 -> 1, sft\.steps: 1 -> 2"):
            folder.claim({"seed": 1, "sft": {"steps": 2, "log_every": 1}})
        folder.write_result({"loss": 0.5}, steps=1, wall_s=0.1)
        folder.claim({"seed": 1, "sft": {"steps": 1, "log_every": 1}}, force=True)
        assert folder.result() is None, "another config has not been finished"
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_another_mesh_is_allowed_with_a_note_and_the_result_stays(tmp_path, capsys):
    with Workdir(tmp_path) as folder:
        folder.claim({"seed": 0, "mesh": {"data": 1}})
        (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 1}\n')
        folder.write_result({"loss": 0.5}, steps=1, wall_s=0.1)
        folder.claim({"seed": 0, "mesh": {"data": 4}, "engine": "pmap"})
        assert folder.result() is not None
        said = capsys.readouterr().err
        assert "going on elsewhere (engine: (absent) -> pmap, mesh.data: 1 -> 4): the numbers stay the same up" in said
        with pytest.raises(UserError, match=r"another config \(seed: 0 -> 1\)"):
            folder.claim({"seed": 1, "mesh": {"data": 1}})


def test_a_run_that_did_no_work_may_be_claimed_with_another_config(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "config.json").write_text('{"data": {"path": "wrong"}}')
    with Workdir(tmp_path) as folder:
        folder.claim({"data": {"path": "right"}})
    assert "right" in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged"), ("[]", "holds no JSON object")])
def test_a_damaged_config_is_reported(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with Workdir(tmp_path) as folder, pytest.raises(UserError, match=rf"config\.json.*{message}"):
        folder.claim({"seed": 0})


def test_a_run_without_its_config_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with Workdir(tmp_path) as folder, pytest.raises(UserError, match=r"without its config\.json"):
        folder.claim({"seed": 0})


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"), Workdir(tmp_path / "file" / "run"):
        pass


def test_versions_name_the_libraries():
    assert {"python", "jax", "optax", "orbax-checkpoint"} <= versions().keys()

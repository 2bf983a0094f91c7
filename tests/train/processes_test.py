"""Two processes of four devices train as one process of eight does, and stop, die and go on as one."""

import json
import signal
import time

import jax
import numpy as np
import pytest

from rlx.report.rows import read_rows
from rlx.train.main import train
from rlx.train.restore import restore
from tests.train import processes_runs, two_processes

DOUBLE = {"JAX_ENABLE_X64": "1"}
RUNS = "tests.train.processes_runs"


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of runs that two processes have finished undisturbed."""
    folder = tmp_path_factory.mktemp("together")
    ended = two_processes.run(["-W", "error", "-m", RUNS, str(folder), *processes_runs.RUNS], **DOUBLE)
    assert ended[1].out == ended[1].err == "" and "rlx: stage 'sft'" in ended[0].err
    return folder


def leaves(folder):
    with jax.enable_x64(True):
        return [np.asarray(leaf) for leaf in jax.tree.leaves(restore(folder).state)]


@pytest.mark.parametrize("name", processes_runs.RUNS)
def test_two_processes_train_as_one_does(together, tmp_path, name):
    with jax.enable_x64(True):
        train(processes_runs.RUNS[name](), tmp_path)
    for ours, theirs in zip(leaves(together / name), leaves(tmp_path), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    for row, other in zip(*(read_rows(f / "metrics.jsonl") for f in (together / name, tmp_path)), strict=True):
        assert row.keys() == other.keys() and row["step"] == other["step"]
        numbers = [[value for value in one.values() if not isinstance(value, str)] for one in (row, other)]
        np.testing.assert_allclose(*numbers, rtol=1e-9, atol=1e-9)


def command(config, folder, *more):
    file = folder / "config.py"
    file.write_text(f"def get_config():\n    return {config!r}\n")
    return ["-m", "rlx.train", f"--config={file}", f"--workdir={folder / 'dpo'}", *more]


def wait_for_rows(path, count, started):
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert all(process.poll() is None for process in started), two_processes.wait(started)
        time.sleep(0.01)


def test_what_ends_one_process_ends_both_and_both_go_on(together, tmp_path):
    same, rows = command(processes_runs.dpo(), tmp_path), tmp_path / "dpo" / "metrics.jsonl"
    started = two_processes.start(same, **DOUBLE)
    wait_for_rows(rows, 1, started)
    started[1].send_signal(signal.SIGTERM)
    ended = two_processes.wait(started)
    assert [one.code for one in ended] == [0, 0] and ended[1].out == ended[1].err == ""
    assert "SIGTERM: saved step" in ended[0].err

    started = two_processes.start(same, **DOUBLE)
    wait_for_rows(rows, 5, started)
    started[0].kill()
    _, other = two_processes.wait(started)
    assert other.code == 1, other
    assert not (tmp_path / "dpo" / "result.json").exists()
    line = (
        "error: process 0 has ended without a word; the same command for all processes goes on from the last checkpoint"
    )
    assert other.err.splitlines()[-1] == line

    two_processes.run(same, **DOUBLE)
    assert rows.read_bytes() == (together / "dpo" / "metrics.jsonl").read_bytes()
    for ours, theirs in zip(leaves(tmp_path / "dpo"), leaves(together / "dpo"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    results = [json.loads((folder / "dpo" / "result.json").read_text()) for folder in (tmp_path, together)]
    assert results[0]["metrics"] == results[1]["metrics"]

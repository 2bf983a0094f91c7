"""A sweep runs each run once, through kills, failures and second callers, and ends in a table with intervals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlx.errors import UserError
from rlx.lock import Lock
from rlx.report.rows import read_json, read_rows
from rlx.report.rows import write_atomically as write
from rlx.sweep import __main__ as cli
from rlx.sweep import worker
from rlx.sweep.plan import make_plan, program_key

CONFIG = r"""
import os, pathlib, time
from ml_collections import ConfigDict
from rlx import sweep

def get_config(arg=None):
    return ConfigDict(dict(seed=0, steps=int(arg or 1), gate="", fail="", method=dict(name="dpo", beta=0.1)))

def get_sweep(name=None):
    if name == "methods":
        return sweep.cross([{"method": "dpo"}, {"method": {"name": "rdpo", "epsilon": 0.2}}], sweep.seeds(2))
    if name == "mixed":
        return sweep.cross(sweep.seeds(2), [{"method": "dpo"}, {"method": "rdpo"}])
    if name == "typo":
        return [{"method.beta": 0.5}, {"method.betta": 0.1}]
    if name == "twice":
        return [{"seed": 1}, {"seed": 2}, {"seed": 1}]
    return sweep.cross(sweep.product(**{"method.beta": [0.1, 0.5]}), sweep.seeds(3))

def run(config, workdir):
    with open(workdir / "starts.txt", "a") as file:
        file.write("x")
    with open(workdir.parent / "order.txt", "a") as file:
        file.write(f"{config.method.name} {os.getpid()}\n")
    print("training with seed", config.seed)
    while config.gate and config.seed == 1 and not pathlib.Path(config.gate).exists():
        time.sleep(0.05)
    if config.fail and not pathlib.Path(config.fail).exists() and config.seed == 1:
        raise RuntimeError(f"no luck with beta {config.method.beta}")
    with open(workdir / "ends.txt", "a") as file:
        file.write("x")
    return {"accuracy": 0.5 + 0.1 * config.method.get("beta", 0.1) + 0.01 * config.seed, "loss": float("nan")}
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "noise.py"
    path.write_text(CONFIG)
    return str(path)


def counts(workdir: Path, name: str) -> list[int]:
    """How often each run wrote to its side file, in the order of the runs."""
    folders = sorted(folder for folder in workdir.iterdir() if folder.is_dir() and folder.name[0] != ".")
    return [len((folder / name).read_text()) if (folder / name).exists() else 0 for folder in folders]


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the sweep ended early"
        assert time.monotonic() < deadline, "the sweep hangs"
        time.sleep(0.05)


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "rlx.sweep", *arguments], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_2x3_sweep_interrupted_and_restarted_gives_each_run_once(tmp_path, spec, number):
    workdir, gate = tmp_path / "w", tmp_path / "gate"
    arguments = [f"--config={spec}", f"--workdir={workdir}", f"--config.gate={gate}"]
    process = start(*arguments)
    wait_until(lambda: workdir.exists() and sum(counts(workdir, "starts.txt")) == 2, process)
    with pytest.raises(UserError, match=rf"the sweep in .* is in use by process {process.pid} on "):
        cli.main(arguments)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert ("interrupted; the same command goes on." in errors) == (number == signal.SIGTERM)
    assert sum(counts(workdir, "ends.txt")) == 1

    gate.touch()
    assert cli.main([*arguments, "--workers=2"]) == 0
    assert counts(workdir, "ends.txt") == [1] * 6
    assert counts(workdir, "starts.txt") == [1, 2, 1, 1, 1, 1]
    results = read_rows(workdir / "results.jsonl")
    assert [row["overrides"]["seed"] for row in results] == [0, 1, 2, 0, 1, 2]
    table = (workdir / "table.md").read_text()
    assert "|         0.1 | 0.520 ± 0.025 |" in table and "|         0.5 | 0.560 ± 0.025 |" in table
    header, first, _ = (workdir / "table.csv").read_text().splitlines()
    assert header.startswith("method.beta,accuracy,accuracy_low,accuracy_high,accuracy_n,loss")
    assert first.startswith("0.1,0.52,0.49") and first.endswith(",3")
    assert (workdir / "plot.png").read_bytes().startswith(b"\x89PNG")

    assert cli.main(arguments) == 0  # nothing is left to run
    assert counts(workdir, "starts.txt") == [1, 2, 1, 1, 1, 1]


def test_the_sweep_goes_on_after_a_failure_and_tries_it_again(tmp_path, spec, capsys):
    workdir, cure = tmp_path / "w", tmp_path / "cure"
    arguments = [f"--config={spec}", f"--workdir={workdir}", f"--config.fail={cure}"]
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert "2 of 6 runs failed; the same command tries them again." in captured.out
    assert "failed: RuntimeError: no luck with beta 0.5\n" in captured.err
    assert "    training with seed 1\n" in captured.err and "  whole log: " in captured.err
    assert counts(workdir, "ends.txt") == [1, 0, 1, 1, 0, 1]
    cli.main([*arguments, "--list"])
    listed = capsys.readouterr().out
    assert listed.count("| failed ") == 2 and listed.count("| finished ") == 4
    cure.touch()
    assert cli.main(arguments) == 0
    assert counts(workdir, "ends.txt") == [1] * 6
    assert not list(workdir.glob("*/error.txt"))


def test_a_run_whose_process_is_killed_is_a_failure(tmp_path, spec):
    workdir, gate = tmp_path / "w", tmp_path / "gate"
    process = start(f"--config={spec}", f"--workdir={workdir}", f"--config.gate={gate}")
    wait_until(lambda: workdir.exists() and sum(counts(workdir, "starts.txt")) == 2, process)
    (lock,) = workdir.glob("001-*/.lock")
    os.kill(int(lock.read_text().split()[1]), signal.SIGKILL)
    gate.touch()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "failed: its process ended with signal SIGKILL" in errors
    assert counts(workdir, "ends.txt") == [1, 0, 1, 1, 1, 1]


def test_index_runs_one_run_in_this_process(tmp_path, spec, capsys):
    workdir = tmp_path / "w"
    arguments = [f"--config={spec}", f"--workdir={workdir}", "--sweep=methods"]
    for index in (3, 0):
        assert cli.main([*arguments, f"--index={index}"]) == 0
    assert cli.main([*arguments, "--index=3"]) == 0
    assert "is finished already" in capsys.readouterr().out
    assert [row["index"] for row in read_rows(workdir / "results.jsonl")] == [0, 3]
    folder = next(workdir.glob("003-*"))
    method = read_json(folder / "config.json")["method"]
    assert method == {"name": "rdpo", "epsilon": 0.2}
    assert read_json(folder / "result.json").keys() == {"metrics", "wall_s", "versions"}
    with pytest.raises(UserError, match="--index=4: the sweep has the runs 0 to 3."):
        cli.main([*arguments, "--index=4"])
    with pytest.raises(UserError, match="--index takes an int, not 'x'."):
        cli.main([*arguments, "--index=x"])


def test_a_failing_index_exits_with_1(tmp_path, spec, capsys):
    arguments = [f"--config={spec}", f"--workdir={tmp_path / 'w'}", "--config.fail=never", "--index=1"]
    assert cli.main(arguments) == 1
    assert "failed: RuntimeError: no luck with beta 0.1" in capsys.readouterr().err


def test_list_touches_nothing(tmp_path, spec, capsys):
    assert cli.main([f"--config={spec}", f"--workdir={tmp_path / 'w'}", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and lines[2].split(" | ")[2] == "new   "
    assert not (tmp_path / "w").exists()


def test_overrides_are_checked_before_anything_starts(tmp_path, spec):
    with pytest.raises(UserError) as error:
        cli.main([f"--config={spec}", f"--workdir={tmp_path / 'w'}", "--sweep=typo"])
    assert str(error.value).startswith("run 1 of the sweep, {'method.betta': 0.1}: ")
    assert "Did you mean 'beta'" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "w").exists()


def test_equal_runs_are_refused(spec):
    with pytest.raises(UserError, match="runs 0 and 2 of the sweep are the same: {'seed': 1}."):
        make_plan(spec, "twice")


def test_a_config_without_a_sweep_says_what_to_write(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()\n")
    expected = r"plain.py defines no get_sweep\(sweep=None\), which returns the list of the runs' overrides."
    with pytest.raises(UserError, match=expected):
        make_plan(str(path))
    path.write_text(path.read_text() + "def get_sweep():\n    return []\n")
    with pytest.raises(UserError, match="returned no runs"):
        make_plan(str(path))
    path.write_text(path.read_text() + "def get_sweep():\n    return {'seed': [1, 2]}\n")
    with pytest.raises(UserError, match="must return a list of dicts, not dict"):
        make_plan(str(path))


def test_another_sweep_in_the_same_directory_is_refused_unless_extended(tmp_path, spec):
    workdir = tmp_path / "w"
    arguments = [f"--config={spec}", f"--workdir={workdir}"]
    assert cli.main([*arguments, "--index=0"]) == 0
    before = {path: path.read_bytes() for path in workdir.rglob("result.json")}
    changed = [*arguments, "--config.method.beta=0.3", "--config.steps=2", "--index=1"]
    with pytest.raises(UserError) as error:
        cli.main(changed)
    assert str(error.value).startswith(f"{workdir} holds another sweep: the config has changed (")
    assert "steps: 1 -> 2" in str(error.value) and "--extend" in str(error.value)
    with pytest.raises(UserError, match="holds another sweep: 4 runs are new and 6 are gone."):
        cli.main([*arguments, "--sweep=methods", "--index=1"])
    assert cli.main([*changed, "--extend"]) == 0
    assert [row["index"] for row in read_rows(workdir / "results.jsonl")] == [1]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list(workdir.rglob("result.json"))) == 2


def test_ids_are_stable_and_follow_the_config(spec):
    plan, again = make_plan(spec), make_plan(spec)
    assert [run.id for run in plan.runs] == [run.id for run in again.runs]
    other = make_plan(spec, None, {"steps": "2"})
    assert not {run.id for run in plan.runs} & {run.id for run in other.runs}
    assert all(run.config.steps == 2 for run in other.runs)


def test_runs_share_programs_unless_an_int_or_a_name_differs(spec):
    assert len({program_key(run) for run in make_plan(spec).runs}) == 1
    methods = [program_key(run) for run in make_plan(spec, "methods").runs]
    assert methods[0] == methods[1] != methods[2] == methods[3]


def test_runs_of_one_program_follow_each_other_in_one_process(tmp_path, spec):
    workdir = tmp_path / "w"
    assert cli.main([f"--config={spec}", f"--workdir={workdir}", "--sweep=mixed"]) == 0
    names, pids = zip(*(line.split() for line in (workdir / "order.txt").read_text().splitlines()), strict=True)
    assert names in (("dpo", "dpo", "rdpo", "rdpo"), ("rdpo", "rdpo", "dpo", "dpo"))
    assert len(set(pids)) == 1
    assert [row["overrides"]["method"] for row in read_rows(workdir / "results.jsonl")] == ["dpo", "rdpo"] * 2


def test_metrics_option_chooses_the_columns(tmp_path, spec):
    arguments = [f"--config={spec}", f"--workdir={tmp_path / 'w'}", "--index=0"]
    assert cli.main([*arguments, "--metrics=accuracy"]) == 0
    table = (tmp_path / "w" / "table.md").read_text()
    assert "| method.beta | accuracy |   n |" in table and "In table.csv too: loss." in table


@pytest.mark.parametrize("text", ["0", "two", "1.5"])
def test_workers_must_be_a_positive_int(tmp_path, spec, text):
    with pytest.raises(UserError, match=f"--workers takes an int of at least 1, not '{text}'."):
        cli.main([f"--config={spec}", f"--workdir={tmp_path / 'w'}", f"--workers={text}"])


def test_a_run_that_is_at_work_elsewhere_is_not_started(tmp_path, spec):
    run = make_plan(spec).runs[0]
    with Lock(tmp_path / run.id / ".lock").acquire("the run"), pytest.raises(UserError, match="is in use by process"):
        cli.main([f"--config={spec}", f"--workdir={tmp_path}", "--index=0"])


def test_a_lock_of_a_dead_process_is_free(tmp_path):
    write(tmp_path / "lock", "process 999999999 on nowhere\n")
    with Lock(tmp_path / "lock").acquire("it") as lock:
        assert f"process {os.getpid()} on " in lock.path.read_text()
    with Lock(tmp_path / "lock").acquire("it"):
        pass


def test_compiled_programs_are_shared_through_the_directory_unless_the_user_has_a_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert worker.cache_environment(tmp_path)["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / ".cache")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert "JAX_COMPILATION_CACHE_DIR" not in worker.cache_environment(tmp_path)


def test_a_trainer_run_is_finished_by_its_own_result(tmp_path, spec):
    """`execute` keeps the result.json that a run wrote, and calls a run without one unfinished."""
    run = make_plan(spec).runs[0]

    class Module:
        @staticmethod
        def run(config, workdir):
            write(workdir / "result.json", json.dumps({"metrics": {"accuracy": 1.0}, "steps": 3}))

    class Silent:
        @staticmethod
        def run(config, workdir):
            return None

    assert worker.execute(run, Silent, tmp_path / "a") == "the run ended without result.json and returned no metrics"
    assert worker.execute(run, Module, tmp_path / "a") is None
    assert read_json(tmp_path / "a" / "result.json")["steps"] == 3

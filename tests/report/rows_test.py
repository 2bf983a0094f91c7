"""Rows of metrics survive kills and resumes: nothing lost, nothing twice, every line valid JSON."""

import json
import math
import sys

import numpy as np
import pytest

from rlx.errors import UserError
from rlx.report.loggers import JsonlLogger, Loggers, open_loggers
from rlx.report.rows import read_metrics, read_rows, truncate, write_atomically


def write_steps(path, stage, steps):
    logger = JsonlLogger(path)
    for step in steps:
        logger.write(step, stage, "train", {"loss": 1.0 / (step + 1)})
    logger.close()


def test_every_line_is_valid_json_and_comes_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    logger = JsonlLogger(path)
    metrics = {"a": math.nan, "b": math.inf, "c": np.float32(-np.inf), "d": np.float32(0.1), "e": np.int32(3)}
    logger.write(np.int64(7), "sft", "eval", metrics)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    (row,) = read_rows(path)
    assert (row["stage"], row["step"], row["split"]) == ("sft", 7, "eval")
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf
    assert row["d"] == float(np.float32(0.1)) and row["e"] == 3


def test_a_line_is_on_disk_when_write_returns(tmp_path):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.write(0, "sft", "train", {"loss": 1.0})
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 1
    logger.close()
    logger.close()


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_half_written_last_line_is_ignored_by_the_reader_and_removed_by_the_writer(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, "sft", range(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [row["step"] for row in read_rows(path)][:2] == [0, 1]
    write_steps(path, "sft", [2])
    assert path.read_bytes() == whole


def test_damage_before_the_last_line_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step"\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl:2: not a JSON object"):
        read_rows(path)


def test_truncate_keeps_finished_stages_and_the_steps_of_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, "sft", range(4))
    write_steps(path, "preference", range(4))
    assert truncate(path, "preference", 1) == 2
    write_steps(path, "preference", range(2, 4))
    seen = [(row["stage"], row["step"]) for row in read_rows(path)]
    assert seen == [("sft", step) for step in range(4)] + [("preference", step) for step in range(4)]


def test_truncate_of_an_earlier_stage_drops_the_later_ones(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, "sft", range(4))
    write_steps(path, "preference", range(2))
    assert truncate(path, "sft", 2) == 3
    assert [row["step"] for row in read_rows(path)] == [0, 1, 2]
    assert truncate(path, "sft", -1) == 3
    assert read_rows(path) == []


def test_truncate_without_a_file_or_rows_to_drop_does_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert truncate(path, "sft", 0) == 0
    write_steps(path, "sft", range(2))
    before = path.stat().st_mtime_ns
    assert truncate(path, "sft", 5) == 0
    assert path.stat().st_mtime_ns == before


def test_atomic_write_leaves_no_temporary_file(tmp_path):
    write_atomically(tmp_path / "a.txt", "x")
    write_atomically(tmp_path / "a.txt", "y")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "y"


def test_a_metric_cannot_hide_the_step(tmp_path):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="a metric cannot be called 'step'"):
        logger.write(0, "sft", "train", {"step": 3})


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_missing_extra_names_the_install_command(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as error:
        open_loggers(tmp_path, [name])
    expected = f"the logger '{name}' needs the package {package}: pip install rlx[{name}]"
    assert str(error.value) == expected


def test_unknown_logger_names_the_close_match(tmp_path):
    with pytest.raises(UserError, match="unknown logger 'tensorbord'. Did you mean 'tensorboard'?"):
        open_loggers(tmp_path, ["tensorbord"])


def test_extra_loggers_get_scalars_named_by_stage_and_split(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, *args, **options):
            calls.append(("open", args, options.get("resume")))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def define_metric(self, name, step_metric):
            calls.append((name, step_metric))

        def log(self, values):
            calls.append(values)

        def close(self):
            calls.append("close")

        finish = close

    def init(**options):
        return Writer(options["id"], **options)

    modules = sys.modules
    monkeypatch.setitem(modules, "tensorboardX", type("module", (), {"SummaryWriter": Writer}))
    monkeypatch.setitem(modules, "wandb", type("module", (), {"init": staticmethod(init)}))
    loggers = open_loggers(tmp_path, ["tensorboard", "wandb"], {"seed": 0})
    loggers.write(2, "sft", "eval", {"loss": np.float32(0.5)})
    loggers.write(3, "sft", "eval", {"loss": 0.25})
    loggers.close()
    assert ("sft/eval/loss", 0.5, 2) in calls
    assert ("sft/*", "sft/step") in calls and calls.count(("sft/*", "sft/step")) == 1
    assert {"sft/step": 3, "sft/eval/loss": 0.25} in calls
    assert calls[-2:] == ["close", "close"]
    open_loggers(tmp_path, ["wandb"]).close()
    opened = [call for call in calls if isinstance(call, tuple) and call[0] == "open" and call[2] == "allow"]
    assert opened[0] == opened[1]  # the same W&B run goes on


def test_loggers_is_a_logger_of_loggers(tmp_path):
    pair = Loggers([JsonlLogger(tmp_path / "a"), JsonlLogger(tmp_path / "b")])
    pair.write(0, "sft", "train", {"loss": 1.0})
    pair.close()
    assert read_rows(tmp_path / "a") == read_rows(tmp_path / "b") != []


ROW = {"stage": "sft", "step": 1, "split": "train", "loss": 0.5}
DAMAGED = [
    ("[1]", "not a JSON object .but a list"),
    ('{"step": 1, "step": 2}', "not a JSON object .the key 'step' stands twice"),
    ("[" * 5000, ".*nested too deeply"),
    ({"stage": 1}, "'stage' must be a text"),
    ({"stage": "s" * 300}, "'stage' must be a text of at most 200 letters"),
    ({"step": "1"}, "'step' must be a whole number, found '1'"),
    ({"step": 2**60}, "'step' must be a whole number"),
    ({"loss": "high"}, "the metric 'loss' must be a number, found 'high'"),
    ({"loss": [1]}, "the metric 'loss' must be a number"),
    ({"x" * 300: 1}, "the name of a metric has 300 letters"),
    ({"loss": 10**400}, "'loss' is a number that no float can hold"),
]


@pytest.mark.parametrize(("line", "message"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_row_of_metrics_is_named_by_its_line(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    line = line if isinstance(line, str) else json.dumps({**ROW, **line})
    path.write_text(f"{json.dumps(ROW)}\n{line}\n{json.dumps(ROW)}\n")
    with pytest.raises(UserError, match=f"metrics.jsonl:2: {message}") as caught:
        read_metrics(path)
    assert len(str(caught.value).splitlines()) == 1


def test_rows_lack_nothing_and_pictures_have_room(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "sft", "step": 1}\n\n')
    with pytest.raises(UserError, match="metrics.jsonl:1: a row of metrics without 'split'"):
        read_metrics(path)
    path.write_text("".join(json.dumps({**ROW, "split": f"s{i}"}) + "\n" for i in range(70)))
    with pytest.raises(UserError, match="metrics.jsonl:65: more than 64 stages and splits"):
        read_metrics(path)


def test_half_a_surrogate_pair_is_written_as_an_escape(tmp_path):
    write_atomically(tmp_path / "table.md", "a\ud800b")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == "a\\ud800b"


def test_a_metric_that_one_row_lacks_leaves_the_report_standing():
    from rlx.report import entropy

    row = {"stage": "rl", "split": "train", "reward": 0.5, "rollout_entropy": 1.0}
    rows = [{**row, "step": step, "covariance": None if step == 2 else 0.5} for step in (1, 2, 3, 4)]
    assert entropy.table([entropy.curve(rows, "a")])[0]["Cov > 0"] == 0.75

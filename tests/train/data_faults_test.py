"""Data that vanish, change or are damaged under a run: they are named, and the last checkpoint is gone on from."""

import json
import os
import shutil

import pytest

from rlx.data.letters import letter_pairs
from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.interrupts import Stopped
from rlx.train.main import train

pytestmark = pytest.mark.usefixtures("one_model")


@pytest.fixture
def config(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("RLX_DATA_CACHE", raising=False)
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in letter_pairs(16, seed=0, length=3)))
    found = tiny(stages=("sft",))
    for key in ("preference", "method", "reference"):
        del found[key]
    found["data"] = {**found["data"], "source": "jsonl", "path": str(path), "records": None}
    found["sft"] = found["sft"] | {"steps": 6, "checkpoint_every": 1, "eval_every": 0}
    return found


def prepared(workdir):
    (path,) = (workdir / "data").rglob("*array_record-*")
    return path


def at(step, act):
    def stop(_, reached):
        if reached == step:
            act()
        return False

    return stop


def test_the_file_is_read_once_and_may_go_while_a_run_reads_what_it_prepared(config, tmp_path):
    """There are no workers that could die: a thread of this process reads ahead, from prepared files."""
    train(config, tmp_path / "run", stop=at(2, (tmp_path / "train.jsonl").unlink))
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == 6


def test_a_file_that_is_gone_or_another_when_a_run_goes_on_is_refused(config, tmp_path):
    path, workdir = tmp_path / "train.jsonl", tmp_path / "run"
    with pytest.raises(Stopped):
        train(config, workdir, stop=lambda *_: True)
    before = sorted((workdir / "checkpoints").iterdir())
    text = path.read_text()
    path.unlink()
    with pytest.raises(UserError, match=r"data.path: no file .*train\.jsonl"):
        train(config, workdir)
    path.write_text(text.replace("\n", " \n", 1))
    with pytest.raises(UserError, match="cannot resume: fingerprint was .* the order of the data would differ"):
        train(config, workdir)
    assert sorted((workdir / "checkpoints").iterdir()) == before
    path.write_text(text)
    train(config, workdir)
    assert read_rows(workdir / "metrics.jsonl")[-1]["step"] == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: os.truncate(path, 100),
        lambda path: path.write_bytes(b"x" * path.stat().st_size),
    ],
    ids=["vanished", "truncated", "overwritten"],
)
def test_prepared_files_that_are_damaged_are_named_and_can_be_made_again(config, tmp_path, damage):
    workdir = tmp_path / "run"
    with pytest.raises(Stopped):
        train(config, workdir, stop=lambda stage, step: step == 2)
    damage(prepared(workdir))
    with pytest.raises(
        UserError, match=r"prepared data cannot be read any more \(.*\): delete .*data/\w+, and the same"
    ):
        train(config, workdir)
    assert (workdir / "checkpoints" / "00000002").is_dir()
    shutil.rmtree(next((workdir / "data").iterdir()))
    train(config, workdir)
    assert read_rows(workdir / "metrics.jsonl")[-1]["step"] == 6

"""Faults in whole runs: what is said, what is left, and that the same command goes on to the same bits."""

import shutil

import pytest

from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.main import train
from rlx.train.restore import restore
from tests.train.main_test import Killed, assert_same_run, kill_at, leaves


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(finished, tiny, tmp_path, capsys):
    config, workdir = tiny(keep=4), tmp_path / "run"
    for stage in ("sft", "preference"):
        config[stage] = config[stage] | {"checkpoint_every": 1}
    with pytest.raises(Killed):
        train(config, workdir, stop=kill_at("preference", 3))
    places = workdir / "checkpoints"
    assert [path.name for path in sorted(places.glob("0*"))] == ["00000002", "00000003", "00000004", "00000005"]
    assert read_rows(workdir / "metrics.jsonl")[-1]["step"] == 3
    for name, file in (("00000005", "state/manifest.ocdbt"), ("00000004", "notes/metadata")):
        (places / name / file).write_bytes((places / name / file).read_bytes()[:-1])
    assert len(leaves(workdir)) and "warning: checkpoint" in capsys.readouterr().err, "evaluation reads 00000003"
    assert not list(places.glob("*.damaged")), "and moves nothing"
    with pytest.raises(UserError, match=r"00000005 is damaged \(state/manifest.ocdbt has \d+ bytes of \d+\)"):
        restore(places / "00000005")
    train(config, workdir)
    said = capsys.readouterr().err
    assert "it is now 00000005.damaged" in said and "it is now 00000004.damaged" in said
    assert "going on from step 3 of the stage 'sft'" in said
    assert_same_run(workdir, finished)
    assert len(list(places.glob("*.damaged"))) == 2


def test_damage_that_only_the_reading_shows_costs_no_more(finished, tiny, tmp_path, capsys):
    """Without checksums a flipped byte is found by who reads the arrays, if at all: the run falls back all the same."""
    config, workdir = tiny(checksums=False), tmp_path / "run"
    shutil.copytree(finished, workdir)
    (workdir / "result.json").unlink()
    last = max((workdir / "checkpoints").glob("0*"))
    (last / "manifest.json").write_text('{"files": {}}')
    for path in (last / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"x" * path.stat().st_size)
    train(config, workdir)
    assert f"it is now {last.name}.damaged" in capsys.readouterr().err
    assert_same_run(workdir, finished)


def test_a_damaged_reference_is_named(finished, tiny, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    (workdir / "result.json").unlink()
    shutil.rmtree(max((workdir / "checkpoints").glob("0*")))
    shutil.rmtree(workdir / "checkpoints" / "reference" / "state")
    before = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    with pytest.raises(UserError, match=r"checkpoints/reference is damaged \(.* is missing\): put back a copy of it"):
        train(tiny(), workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == before

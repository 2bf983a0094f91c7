"""Runs read back on other devices than they trained on, and without what the reader does not need."""

import json
import shutil

import jax
import numpy as np
import pytest

from rlx.errors import UserError
from rlx.evaluate import evaluate
from rlx.report.rows import read_rows
from rlx.train.main import train
from rlx.train.restore import restore
from rlx.train.sharding import fewer, make_mesh
from tests.tiny_run import tiny_config

pytestmark = pytest.mark.usefixtures("one_model")


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))


def moved(run, folder, **changes):
    """A copy of a run whose config says other things of its devices."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_a_run_of_more_devices_than_there_are_is_read_onto_those(tmp_path, finished, capsys):
    folder = moved(finished, tmp_path / "run", mesh={"data": 4, "fsdp": 4, "model": 2})
    found = restore(folder)
    assert dict(found.run.mesh.shape) == {"data": 1, "fsdp": 4, "model": 2, "sequence": 1}
    assert "ran on 32 devices: it is read onto 8 of the 8 here" in capsys.readouterr().err
    same(found.state, restore(finished).state)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ({"data": "two"}, "mesh.data must be a whole number of at least 1, got 'two'"),
        ("two", r"mesh must be a block of axes \(data, fsdp, model, sequence\), not 'two'"),
    ],
)
def test_a_mesh_that_a_config_gets_wrong_is_said(tmp_path, finished, mesh, message):
    with pytest.raises(UserError, match=message):
        restore(moved(finished, tmp_path / "run", mesh=mesh))


def test_a_mesh_beyond_all_bounds_is_cut_down_at_once():
    assert fewer({"data": 2**62, "model": 2}, 8) == {"data": 4, "fsdp": 1, "model": 2, "sequence": 1}


def test_a_run_is_read_onto_the_mesh_of_another(tmp_path, finished):
    """Also one over which its own batches of 4 do not divide, or that its engine does not go with."""
    mesh = make_mesh({"fsdp": 8})
    found = restore(moved(finished, tmp_path / "run", engine="pmap"), mesh=mesh)
    assert found.run.mesh == mesh
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(found.state.params)} == {8}
    same(found.state, restore(finished).state)


def test_a_run_outlives_its_data_and_the_run_that_it_started_from(tmp_path, finished):
    config = json.loads((finished / "config.json").read_text())
    data = {key: value for key, value in config["data"].items() if key != "records"}
    data |= {"source": "jsonl", "path": "/gone/pairs.jsonl"}
    found = restore(moved(finished, tmp_path / "run", start="/gone/run", data=data))
    same(found.state, restore(finished).state)
    with pytest.raises(UserError, match=r"data.path: no file /gone/pairs.jsonl"):
        evaluate(found)


def test_the_state_of_the_optimizer_is_left_unread(finished):
    found, whole = restore(finished, optimizer=False), restore(finished)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(found.state.opt_state))
    assert [leaf.shape for leaf in jax.tree.leaves(found.state.opt_state)] == [
        leaf.shape for leaf in jax.tree.leaves(whole.state.opt_state)
    ]
    same(found.state._replace(opt_state=None), whole.state._replace(opt_state=None))


def test_runs_that_read_others_have_them_on_their_own_devices(tmp_path, finished):
    config = tiny_config(start=str(finished), policies={"reference": {"run": str(finished)}}, mesh={"fsdp": 2})
    config["sft"]["steps"], config["preference"]["steps"] = 0, 1
    train(config, tmp_path / "two")
    train(config | {"mesh": {}}, tmp_path / "one")
    two, one = (read_rows(tmp_path / name / "metrics.jsonl")[-1] for name in ("two", "one"))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)

"""pmap and jit on the mesh train to the same numbers, and a run may go on with the other of them."""

import jax
import numpy as np
import pytest

from rlx.errors import UserError
from rlx.report.rows import read_rows
from rlx.train.assemble import assemble
from rlx.train.interrupts import Stopped
from rlx.train.main import train
from rlx.train.restore import restore
from tests.train import processes_runs

pytestmark = pytest.mark.usefixtures("one_model")

MESH = {"data": 4, "fsdp": 1, "model": 1}


def dpo(**changes):
    """SFT, then DPO in packed micro-batches with a moving reference."""
    config = processes_runs.dpo(mesh=MESH, reference="auto", **changes)
    config["policies"] = {"reference": {"update": "ema", "decay": 0.5}}
    config["preference"] |= {"micro_batches": 2, "packing": {"multiple": 1}, "checkpoint_every": 1}
    return config


def clip_cov(**changes):
    """Tokens chosen in the whole batch, a critic, a controller, two updates a step, one prompt for its group."""
    config = processes_runs.grpo(mesh=MESH, **changes)
    config["model"] |= {"head": "scalar"}
    config["rl"] |= {"steps": 1, "eval_every": 1}
    config["rl"]["rollout"] |= {
        "critic": {"coefficient": 0.5},
        "control": {"entropy": "step(0.5, 0.01)"},
        "shared_prefix": True,
    }
    return config | {"method": {"name": "clip_cov"}}


def assert_close(folder, other):
    """Two runs have the same numbers but for rounding."""
    states = [restore(path).state for path in (folder, other)]
    for ours, theirs in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-9, atol=1e-9)
    for row, twin in zip(*(read_rows(path / "metrics.jsonl") for path in (folder, other)), strict=True):
        numbers = [[value for value in one.values() if not isinstance(value, str)] for one in (row, twin)]
        assert row.keys() == twin.keys()
        np.testing.assert_allclose(*numbers, rtol=1e-9, atol=1e-9)


def test_preferences_by_both_engines(tmp_path):
    with jax.enable_x64(True):
        train(dpo(), tmp_path / "jit")
        with pytest.raises(Stopped):
            train(dpo(engine="pmap"), tmp_path / "pmap", stop=lambda stage, step: (stage, step) == ("preference", 1))
        train(dpo(), tmp_path / "pmap")
        assert_close(tmp_path / "pmap", tmp_path / "jit")


def test_rewards_by_both_engines(tmp_path):
    with jax.enable_x64(True):
        train(clip_cov(), tmp_path / "jit")
        train(clip_cov(engine="pmap"), tmp_path / "pmap")
        assert_close(tmp_path / "pmap", tmp_path / "jit")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"engine": "pamp"}, "config.engine: unknown 'pamp'. Did you mean 'pmap'"),
        ({"mesh": {"data": 2, "fsdp": 2}}, "config.engine='pmap' splits rows over mesh.data alone: set mesh.fsdp=1"),
    ],
)
def test_what_pmap_does_not_do_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        assemble(processes_runs.dpo(**{"engine": "pmap", "model": processes_runs.MODEL, **changes}))

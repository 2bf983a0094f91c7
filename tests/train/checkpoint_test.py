"""Checkpoints: exact, atomic, the last few of them, into any sharding, and refused where they do not fit."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.errors import UserError
from rlx.train.checkpoint import Checkpoints
from rlx.train.sharding import make_mesh, tree_shardings
from rlx.train.state import TrainState

Spec = jax.sharding.PartitionSpec


def state(seed=0, width=4, mesh=None):
    generator = np.random.default_rng(seed)
    policy = {"w": jnp.asarray(generator.normal(size=(8, width)), jnp.float32), "b": jnp.ones(3, jnp.bfloat16)}
    if mesh is not None:
        policy = jax.device_put(policy, tree_shardings(policy, {"w": Spec("fsdp"), "b": Spec()}, mesh))
    key = jax.random.PRNGKey(seed)
    return TrainState(
        jnp.int32(7), {"policy": policy, "method": {}}, (jnp.zeros(2), ()), {"ema": jnp.float32(0.1)}, key
    )


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints", keep=2)
    yield made
    made.close()


def test_round_trip_is_exact(checkpoints):
    checkpoints.save(3, state(), {"stage": "sft", "window": {"loss": [0.1 + 0.2, 1.0]}})
    found = checkpoints.restore(3, state(seed=1))
    assert jax.tree.structure(found.state) == jax.tree.structure(state())
    for ours, theirs in zip(jax.tree.leaves(found.state), jax.tree.leaves(state()), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert found.notes["stage"] == "sft" and found.notes["window"]["loss"] == [0.1 + 0.2, 1.0]


def test_the_last_ones_are_kept(checkpoints):
    for step in (1, 2, 10):
        checkpoints.save(step, state(), {})
    assert checkpoints.steps() == [2, 10]


def test_what_a_kill_leaves_half_written_is_no_checkpoint(checkpoints):
    checkpoints.save(1, state(), {})
    folder = checkpoints.folder
    shutil.copytree(folder / "00000001", folder / "00000002.orbax-checkpoint-tmp")
    assert checkpoints.steps() == [1]
    checkpoints.save(3, state(), {})
    assert sorted(path.name for path in folder.iterdir()) == ["00000001", "00000003"]


def test_what_a_kill_leaves_of_a_kept_policy_is_not_in_its_way(checkpoints):
    policy = state().params["policy"]
    checkpoints.save_policy("reference", policy)
    folder = checkpoints.folder
    half = folder / "reference.orbax-checkpoint-tmp"
    shutil.move(folder / "reference", half)
    shutil.move(half / "notes", half / "notes.orbax-checkpoint-tmp")
    assert checkpoints.restore_policy("reference", policy) is None
    checkpoints.save_policy("reference", policy)
    np.testing.assert_array_equal(checkpoints.restore_policy("reference", policy)["w"], policy["w"])
    assert [path.name for path in folder.iterdir()] == ["reference"]


def test_a_failed_save_leaves_the_last_one(checkpoints, monkeypatch):
    import orbax.checkpoint as ocp

    checkpoints.save(1, state(), {})
    monkeypatch.setattr(ocp.Checkpointer, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(2, state(), {})
    assert checkpoints.steps() == [1]


def test_restores_into_another_sharding(checkpoints):
    checkpoints.save(1, state(mesh=make_mesh({"fsdp": 4})), {})
    like = state(seed=1, mesh=make_mesh({"fsdp": 2}))
    found = checkpoints.restore(1, like).state.params["policy"]["w"]
    assert found.sharding == like.params["policy"]["w"].sharding
    np.testing.assert_array_equal(found, state().params["policy"]["w"])


def test_the_first_difference_is_named(checkpoints):
    checkpoints.save(1, state(), {})
    with pytest.raises(
        UserError, match=r"params/policy/w is float32\[8, 4\] there and float32\[8, 5\] here, so the model"
    ):
        checkpoints.restore(1, state(width=5))
    with pytest.raises(UserError, match=r"opt_state/1 is absent there and float32\[\] here, so the optimizer differs"):
        checkpoints.restore(1, state()._replace(opt_state=(jnp.zeros(2), jnp.zeros(()))))
    with pytest.raises(
        UserError, match=r"method_state/ema is float32\[\] there and absent here, so the method differs"
    ):
        checkpoints.restore(1, state()._replace(method_state={}))


def test_damage_is_reported_with_the_way_out(checkpoints):
    checkpoints.save(1, state(), {})
    shutil.rmtree(checkpoints.folder / "00000001" / "state")
    with pytest.raises(UserError, match=r"00000001 is damaged .*: remove that folder"):
        checkpoints.restore(1, state())
    (checkpoints.folder / "00000001" / "notes" / "metadata").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        checkpoints.notes(1)


def test_a_policy_has_its_own_place(checkpoints):
    policy = state().params["policy"]
    assert checkpoints.restore_policy("reference", policy) is None
    checkpoints.save_policy("reference", policy)
    np.testing.assert_array_equal(checkpoints.restore_policy("reference", policy)["w"], policy["w"])
    assert checkpoints.steps() == []


def test_at_least_one_is_kept(tmp_path):
    with pytest.raises(UserError, match="at least 1, not 0"):
        Checkpoints(tmp_path, keep=0)

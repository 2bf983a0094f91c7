"""Checkpoints: exact, atomic, the last few of them, into any sharding, and refused where they do not fit."""

import errno
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.errors import UserError
from rlx.train import manifest
from rlx.train.checkpoint import Checkpoints, Damaged
from rlx.train.sharding import make_mesh, tree_shardings
from rlx.train.state import TrainState
from rlx.train.storage import StorageError

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
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(ocp.Checkpointer, "save", lambda *_, **__: (_ for _ in ()).throw(full))
    with pytest.raises(StorageError, match="cannot write .*00000002: No space left on device"):
        checkpoints.save(2, state(), {})
    assert checkpoints.steps() == [1]


def test_what_is_no_matter_of_the_disk_is_not_taken_for_one(checkpoints, monkeypatch):
    import orbax.checkpoint as ocp

    monkeypatch.setattr(ocp.Checkpointer, "save", lambda *_, **__: (_ for _ in ()).throw(TypeError("a mistake")))
    with pytest.raises(TypeError, match="a mistake"):
        checkpoints.save(2, state(), {})


def test_a_kill_before_the_manifest_leaves_the_old_one_in_its_place(checkpoints, monkeypatch):
    """As much of a kept policy's replacement as is there at each moment of it."""
    old, new = (state(seed).params["policy"] for seed in (0, 1))
    checkpoints.save_policy("reference", old)
    place = checkpoints.folder / "reference"
    for moment in ("write", "sync_folder"):  # before the manifest; when both are in their places
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(manifest, moment, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            checkpoints.save_policy("reference", new)
        if moment == "write":
            checkpoints.tidy()
            assert [path.name for path in checkpoints.folder.iterdir()] == ["reference"]
            np.testing.assert_array_equal(checkpoints.restore_policy("reference", old)["w"], old["w"])
    place.rename(place.with_name("reference.old-tmp"))  # a kill between the two renames
    checkpoints.tidy()
    assert place.is_dir()


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
    with pytest.raises(Damaged, match=r"00000001 is damaged \(state/.* is missing\): remove that folder"):
        checkpoints.restore(1, state())
    (checkpoints.folder / "00000001" / "notes" / "metadata").write_text("{")
    with pytest.raises(Damaged, match="is damaged"):
        checkpoints.notes(1)


def largest(folder):
    return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(folder):
    path = largest(folder)
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder):
    path = largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FAULTS = {
    "truncated": (truncate, r"has \d+ bytes of \d+"),
    "flipped": (flip, "does not hold what was written: its checksum differs"),
    "missing": (lambda folder: largest(folder).unlink(), "is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
    "bad manifest": (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
    "bad notes": (lambda folder: (folder / "notes" / "metadata").write_text('{"a'), "Unterminated string"),
    "no notes": (lambda folder: (folder / "notes" / "metadata").unlink(), "No such file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_one_is_moved_aside_and_the_one_before_it_is_the_last(checkpoints, capsys, fault):
    inject, reason = FAULTS[fault]
    for step in (1, 2):
        checkpoints.save(step, state(step), {"stage": "sft"})
    inject(checkpoints.folder / "00000002")
    again = Checkpoints(checkpoints.folder)
    assert again.newest() == 1 and again.last == again.path(1)
    warning = capsys.readouterr().err
    assert re.search(f"warning: checkpoint .*00000002 is damaged .*{reason}.*: it is now 00000002.damaged", warning)
    assert sorted(path.name for path in again.folder.iterdir()) == ["00000001", "00000002.damaged"]
    np.testing.assert_array_equal(again.restore(1, state()).state.params["policy"]["w"], state(1).params["policy"]["w"])
    again.save(2, state(3), {})
    flip(again.path(2))
    assert Checkpoints(again.folder).newest() == 1 and (again.folder / "00000002.damaged.1").is_dir()
    again.close()


def test_none_good_left_is_said_and_nothing_starts_anew(checkpoints):
    checkpoints.save(1, state(), {})
    truncate(checkpoints.folder / "00000001")
    for _ in range(2):  # nor at the next call
        with pytest.raises(UserError, match=r"no good checkpoint left, only 00000001\.damaged: put back a copy"):
            Checkpoints(checkpoints.folder).newest()


def test_sizes_alone_are_checked_where_the_config_says_so(tmp_path):
    checkpoints = Checkpoints(tmp_path, checksums=False)
    checkpoints.save(1, state(), {})
    assert set(dict(json.loads((tmp_path / "00000001" / "manifest.json").read_text())["files"].values()).values()) == {
        None
    }
    checkpoints.save(2, state(), {})
    truncate(checkpoints.path(2))
    assert Checkpoints(tmp_path, checksums=False).newest() == 1
    checkpoints.close()


def test_one_without_a_manifest_of_an_earlier_release_is_read(checkpoints):
    checkpoints.save(1, state(), {})
    (checkpoints.folder / "00000001" / "manifest.json").unlink()
    notes = checkpoints.folder / "00000001" / "notes" / "metadata"
    found = json.loads(notes.read_text())
    del found["manifest"]
    notes.write_text(json.dumps(found))
    assert Checkpoints(checkpoints.folder).newest() == 1


def test_a_policy_has_its_own_place(checkpoints):
    policy = state().params["policy"]
    assert checkpoints.restore_policy("reference", policy) is None
    checkpoints.save_policy("reference", policy)
    np.testing.assert_array_equal(checkpoints.restore_policy("reference", policy)["w"], policy["w"])
    assert checkpoints.steps() == []
    checkpoints.save_policy("reference", policy, "rl")
    assert checkpoints.restore_policy("reference", policy, "rl") is not None
    with pytest.raises(UserError, match="reference is of the stage 'rl', and the checkpoint is of 'preference'"):
        checkpoints.restore_policy("reference", policy, "preference")
    flip(checkpoints.folder / "reference")
    with pytest.raises(Damaged, match="reference is damaged .*checksum differs.*: put back a copy of it"):
        Checkpoints(checkpoints.folder).restore_policy("reference", policy)


def test_at_least_one_is_kept(tmp_path):
    with pytest.raises(UserError, match="at least 1, not 0"):
        Checkpoints(tmp_path, keep=0)

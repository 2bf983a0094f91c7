"""Checkpoints of a run: the train state (Orbax) and, beside it, what is needed to go on as if nothing had happened."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rlx.errors import UserError
from rlx.train.state import TrainState

_NAME = re.compile(r"\d{8}")


class Saved(NamedTuple):
    """A restored checkpoint: the state, and the notes that were saved with it."""

    state: TrainState
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run directory, ``folder/<step of the whole run>``, the last ``keep`` of them.

    A checkpoint is written under another name and renamed when it is complete: whatever moment a kill comes at, the
    last complete one is untouched. Older ones are removed after that. Arrays keep their sharding on the way out and
    are read straight into the sharding of the state they are restored to, on any number of devices.

    Args:
      folder: holds the checkpoints; made when the first one is saved.
      keep: number of checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int = 2):
        if keep < 1:
            raise UserError(f"config.keep is the number of checkpoints to keep and must be at least 1, not {keep}.")
        self.folder, self.keep = folder.absolute(), keep
        self._saver = None

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def save(self, step: int, state: TrainState, notes: Mapping[str, Any]) -> None:
        """Saves a checkpoint, replacing one of the same step, and forgets the oldest.

        Args:
          step: number of the checkpoint in the whole run.
          state: the train state.
          notes: JSON data: stage, data iterator, metrics so far ...
        """
        self._make_room()
        _write(self._checkpointer(), self._path(step), state=state, notes=dict(notes) | {"leaves": _leaves(state)})
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._path(old))

    def notes(self, step: int) -> dict[str, Any]:
        """What was saved beside the state.

        Raises:
          UserError: the checkpoint cannot be read.
        """
        return _read_json(self._path(step))

    def restore(self, step: int, like: TrainState) -> Saved:
        """Reads a checkpoint into the shapes, types and shardings of ``like``.

        Args:
          step: one of :meth:`steps`.
          like: a state of the run that goes on, arrays or ``jax.ShapeDtypeStruct`` with shardings.

        Raises:
          UserError: the checkpoint belongs to another model, method or optimiser, or cannot be read.
        """
        notes, path = self.notes(step), self._path(step)
        _check_leaves(notes["leaves"], _leaves(like), path)
        return Saved(_read(self._checkpointer(), path, like), notes)

    def save_policy(self, name: str, params: Any) -> None:
        """Keeps parameters (the reference of a stage) under a name of their own, outside of the rotation."""
        policy = {"policy": params}
        self._make_room()
        _write(self._checkpointer(), self.folder / name, state=policy, notes={"leaves": _leaves(policy)})

    def restore_policy(self, name: str, like: Any) -> Any:
        """Reads what :meth:`save_policy` wrote; None when there is nothing of that name."""
        path = self.folder / name
        if not path.is_dir():
            return None
        _check_leaves(_read_json(path)["leaves"], _leaves({"policy": like}), path)
        return _read(self._checkpointer(), path, {"policy": like})["policy"]

    def close(self) -> None:
        """Waits for what is being written."""
        if self._saver is not None:
            self._saver.close()
            self._saver = None

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:08d}"

    def _make_room(self) -> None:
        """A folder without what a killed run has left half-written, which would be in the way of the same name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*-tmp*"):
            shutil.rmtree(path)

    def _checkpointer(self) -> Any:
        if self._saver is None:
            import orbax.checkpoint as ocp

            self._saver = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        return self._saver


def _write(saver: Any, path: Path, *, state: Any, notes: Mapping[str, Any]) -> None:
    import orbax.checkpoint as ocp

    items = ocp.args.Composite(state=ocp.args.StandardSave(_as_dict(state)), notes=ocp.args.JsonSave(dict(notes)))
    saver.save(path, args=items, force=True)


def _read(saver: Any, path: Path, like: Any) -> Any:
    import orbax.checkpoint as ocp

    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        found = saver.restore(path, args=ocp.args.Composite(state=ocp.args.StandardRestore(_as_dict(shapes))))
    except (ValueError, OSError, KeyError) as error:
        raise UserError(_damaged(path, error)) from error
    return jax.tree.unflatten(jax.tree.structure(like), list(found["state"].values()))


def _as_dict(tree: Any) -> dict[str, Any]:
    """The leaves by number: what Orbax stores depends on no Python class, and empty branches cost nothing."""
    return {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def _leaves(tree: Any) -> list[list[Any]]:
    """``[path, shape, type]`` of every leaf, in order."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [[_name(path), list(leaf.shape), str(leaf.dtype)] for path, leaf in flat]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _read_json(path: Path) -> dict[str, Any]:
    file = path / "notes" / "metadata"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(_damaged(path, error)) from None


def _damaged(path: Path, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0]
    return f"checkpoint {path} is damaged ({reason}): remove that folder to go on from the one before it."


def _check_leaves(saved: list[list[Any]], wanted: list[list[Any]], path: Path) -> None:
    """Raises a UserError that names the first leaf in which a checkpoint and a state differ."""
    old, new = ({name: (tuple(shape), kind) for name, shape, kind in leaves} for leaves in (saved, wanted))
    for name in [*new, *old]:
        if old.get(name) == new.get(name):
            continue
        there, here = (f"{leaf[1]}{list(leaf[0])}" if leaf else "absent" for leaf in (old.get(name), new.get(name)))
        part = next((what for key, what in _PARTS.items() if name.startswith(key)), "method")
        raise UserError(
            f"checkpoint {path} does not fit this config: {name} is {there} there and {here} here, so the {part} "
            f"differs. Use the config the run was started with, or another --workdir."
        )


_PARTS = {
    "params/policy": "model",
    "policy": "model",
    "opt_state": "optimizer",
    "method_state": "method",
    "params/method": "method",
    "memory": "memory of rollouts",
}

"""Checkpoints of a run: the train state (Orbax) and, beside it, what is needed to go on as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rlx.errors import UserError
from rlx.train import leaves, manifest, processes
from rlx.train.log import say
from rlx.train.state import TrainState
from rlx.train.storage import StorageError, writing

_NAME = re.compile(r"\d{8}")
_NEW, _OLD, _DAMAGED = ".new-tmp", ".old-tmp", ".damaged"


class Damaged(UserError):
    """A checkpoint cannot be read as it was written.

    Attributes:
      path: its folder.
      reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str, remedy: str):
        super().__init__(f"checkpoint {path} is damaged ({reason}): {remedy}")
        self.path, self.reason = path, reason


class Saved(NamedTuple):
    """A restored checkpoint: the state, and the notes that were saved with it."""

    state: TrainState
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run directory, ``folder/<step of the whole run>``, the last ``keep`` of them.

    A checkpoint is written under another name, gets a manifest (:mod:`rlx.train.manifest`) and is renamed when it is
    complete: whatever moment a kill comes at, the last complete one is untouched. Older ones are removed after that.
    What is read is checked against the manifest. Arrays keep their sharding on the way out and are read straight into
    the sharding of the state they are restored to, on any number of devices.

    Args:
      folder: holds the checkpoints; made when the first one is saved.
      keep: number of checkpoints to keep.
      checksums: False: the files are checked by their sizes alone.

    Attributes:
      last: the checkpoint that a run would go on from, by what was read and saved; None before that.
    """

    def __init__(self, folder: Path, keep: int = 2, checksums: bool = True):
        if keep < 1:
            raise UserError(f"config.keep is the number of checkpoints to keep and must be at least 1, not {keep}.")
        self.folder, self.keep, self.checksums = folder.absolute(), keep, checksums
        self.last: Path | None = None
        self._saver = None
        self._checked: set[Path] = set()

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

        Raises:
          StorageError: the disk is full, read-only, gone ...; the checkpoints of before are as they were.
        """
        self._write(self.path(step), state, dict(notes))
        self.last = self.path(step)
        processes.group().lead(self._forget)

    def _forget(self) -> None:
        with writing(self.folder):
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self.path(old))

    def newest(self) -> int | None:
        """The last checkpoint that is as it was written, None where there is none; damaged ones are moved aside.

        Raises:
          UserError: there are checkpoints, and all of them are damaged.
        """
        found = processes.group().lead(self._newest)
        self.last = None if found is None else self.path(found)
        return found

    def _newest(self) -> int | None:
        for step in reversed(self.steps()):
            try:
                self.notes(step)
            except Damaged as error:
                self.set_aside(error)
            else:
                return step
        damaged = sorted(path.name for path in self.folder.glob(f"*{_DAMAGED}*"))
        if damaged:
            raise UserError(
                f"{self.folder} has no good checkpoint left, only {', '.join(damaged)}: put back a copy under its "
                "number, or start anew in another --workdir."
            )
        return None

    def set_aside(self, error: Damaged) -> None:
        """Renames a damaged checkpoint, so that the one before it is the last, and says so."""
        number, aside = 0, error.path.with_name(error.path.name + _DAMAGED)
        while aside.exists():
            number, aside = number + 1, error.path.with_name(f"{error.path.name}{_DAMAGED}.{number + 1}")
        with writing(error.path):
            os.replace(error.path, aside)
        say(f"warning: checkpoint {error.path} is damaged ({error.reason}): it is now {aside.name}, and not used")

    def notes(self, step: int) -> dict[str, Any]:
        """What was saved beside the state.

        Raises:
          Damaged: the checkpoint is not as it was written.
        """
        return self._read_notes(self.path(step), _FALL_BACK)

    def restore(self, step: int, like: TrainState, *, without: Collection[str] = ()) -> Saved:
        """Reads a checkpoint into the shapes, types and shardings of ``like``.

        Args:
          step: one of :meth:`steps`.
          like: a state of the run that goes on, arrays or ``jax.ShapeDtypeStruct`` with shardings.
          without: fields of the state that are not read, and stay as ``like`` has them.

        Raises:
          UserError: the checkpoint belongs to another model, method or optimiser.
          Damaged: it is not as it was written.
        """
        notes, path = self.notes(step), self.path(step)
        leaves.check(notes["leaves"], leaves.of(like), path)
        return Saved(_read(path, like, _FALL_BACK, without), notes)

    def save_policy(self, name: str, params: Any, stage: str = "") -> None:
        """Keeps parameters (the reference of a stage) under a name of their own, outside of the rotation."""
        self._write(self.folder / name, {"policy": params}, {"stage": stage})

    def restore_policy(self, name: str, like: Any, stage: str = "") -> Any:
        """Reads what :meth:`save_policy` wrote; None when there is nothing of that name.

        Raises:
          Damaged: it is not as it was written.
          UserError: it is of another stage than ``stage``: the run has fallen back to one before.
        """
        path = self.folder / name
        if not path.is_dir():
            return None
        notes = self._read_notes(path, _KEPT)
        of = notes.get("stage") or stage
        if stage and of != stage:
            raise UserError(f"{path} is of the stage {of!r}, and the checkpoint is of {stage!r}: {_KEPT}")
        leaves.check(notes["leaves"], leaves.of({"policy": like}), path)
        return _read(path, {"policy": like}, _KEPT)["policy"]

    def tidy(self) -> None:
        """Removes what a killed run has left half-written, and puts back what it was about to replace."""
        for old in self.folder.glob(f"*{_OLD}"):
            path = old.with_name(old.name.removesuffix(_OLD))
            if not path.exists():
                os.replace(old, path)
        for path in self.folder.glob("*-tmp*"):
            shutil.rmtree(path)

    def close(self) -> None:
        """Waits for what is being written."""
        if self._saver is not None:
            self._saver.close()
            self._saver = None

    def path(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / f"{step:08d}"

    def _write(self, path: Path, state: Any, notes: dict[str, Any]) -> None:
        """Writes beside the place, checks what is there by its manifest, and only then takes the place."""
        new, group = path.with_name(path.name + _NEW), processes.group()
        try:
            with writing(path):
                group.lead(self._make_room)
                whole = notes | {"leaves": leaves.of(state), "manifest": True}
                _save(self._checkpointer(), new, state=state, notes=whole)
                group.lead(partial(self._take_place, new, path))
        except StorageError:
            with contextlib.suppress(OSError):
                if group.leads:
                    self.tidy()  # half a checkpoint helps nobody on a full disk
            raise
        self._checked.discard(path)

    def _make_room(self) -> None:
        self.folder.mkdir(exist_ok=True)  # that of the run is there, or its disk is gone
        self.tidy()

    def _take_place(self, new: Path, path: Path) -> None:
        old = path.with_name(path.name + _OLD)
        manifest.write(new, checksums=self.checksums)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
        manifest.sync_folder(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def _read_notes(self, path: Path, remedy: str) -> dict[str, Any]:
        """The notes of a folder whose files are as they were written; checkpoints of old have no manifest."""
        try:
            found = json.loads((path / "notes" / "metadata").read_text(encoding="utf-8"))
            unchecked = not found.get("manifest") and not (path / manifest.NAME).exists()
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise Damaged(path, _first_line(error), remedy) from None
        if not unchecked and path not in self._checked and processes.group().leads:
            wrong = manifest.problem(path, checksums=self.checksums)
            if wrong:
                raise Damaged(path, wrong, remedy)
            self._checked.add(path)
        return found

    def _checkpointer(self) -> Any:
        if self._saver is None:
            import orbax.checkpoint as ocp

            self._saver = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        return self._saver


_FALL_BACK = "remove that folder to go on from the one before it."
_KEPT = "put back a copy of it, or name another --workdir."


def _save(saver: Any, path: Path, *, state: Any, notes: Mapping[str, Any]) -> None:
    import orbax.checkpoint as ocp

    items = ocp.args.Composite(state=ocp.args.StandardSave(_as_dict(state)), notes=ocp.args.JsonSave(dict(notes)))
    saver.save(path, args=items, force=True)


def _read(path: Path, like: Any, remedy: str, without: Collection[str] = ()) -> Any:
    """What :func:`_save` wrote, in the shapes, types and places of ``like``, whose branches ``without`` remain."""
    import orbax.checkpoint as ocp

    flat, structure = jax.tree_util.tree_flatten_with_path(like)
    skipped = {i for i, (where, _) in enumerate(flat) if leaves.name_of(where).split("/")[0] in without}
    shapes = _as_dict(jax.tree.map(ocp.utils.to_shape_dtype_struct, like), skipped)
    wanted = ocp.args.PyTreeRestore(
        item=shapes,
        restore_args=ocp.checkpoint_utils.construct_restore_args(shapes),
        partial_restore=bool(skipped),
    )
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            found = reader.restore(path / "state", args=wanted)
    except (ValueError, OSError, KeyError) as error:
        raise Damaged(path, _first_line(error), remedy) from error
    return structure.unflatten([found.get(_number(i), leaf) for i, (_, leaf) in enumerate(flat)])


def _as_dict(tree: Any, skipped: Collection[int] = ()) -> dict[str, Any]:
    """The leaves by number: what Orbax stores depends on no Python class, and empty branches cost nothing."""
    return {_number(i): leaf for i, leaf in enumerate(jax.tree.leaves(tree)) if i not in skipped}


def _number(i: int) -> str:
    return f"{i:05d}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]

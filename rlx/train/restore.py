"""A trained run, read back from its directory: for evaluation, generation and notebooks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from rlx import config as configs
from rlx.errors import UserError, close_matches
from rlx.train import policies
from rlx.train.assemble import Run, Stage, assemble
from rlx.train.checkpoint import Checkpoints, Damaged
from rlx.train.kept import kept_policy, restore_state
from rlx.train.log import say
from rlx.train.state import TrainState
from rlx.train.trainer import REFERENCE, make_blank
from rlx.train.workdir import CACHE, CHECKPOINTS, CONFIG, use_compilation_cache


class Restored(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      folder: the run directory.
      run: the objects of its config.
      stage: the stage that the checkpoint is from.
      step: of that stage.
      state: the train state; ``state.params["policy"]`` is the policy.
      held: the policy at the start of the stage, None where nothing reads it.
    """

    folder: Path
    run: Run
    stage: Stage
    step: int
    state: TrainState
    held: Any


def restore(path: str | os.PathLike[str]) -> Restored:
    """Reads the last good checkpoint of a run directory, with a warning where later ones are damaged, or the named one.

    Args:
      path: a run directory ``W``, or one of its checkpoints, ``W/checkpoints/00000120``.

    Raises:
      UserError: there is no run or no checkpoint, or it is damaged.
    """
    folder, wanted = _split(Path(path).absolute())
    run = assemble(read_config(folder))
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    steps = checkpoints.steps()
    if not steps or (wanted is not None and wanted not in steps):
        has = f"it has {', '.join(f'{step:08d}' for step in steps)}" if steps else "it has none yet"
        raise UserError(f"--checkpoint={path}: no such checkpoint of {folder}; {has}.")
    for number in [wanted] if wanted is not None else reversed(steps):
        try:
            notes = checkpoints.notes(number)
            stage = _stage_of(run, folder, notes["stage"], f"--checkpoint={path}")
            like = make_blank(run, stage, notes["examples"])
            state, held = restore_state(run.model, checkpoints, number, like), None
            break
        except Damaged as error:
            if number in (wanted, steps[0]) or error.path != checkpoints.path(number):
                raise
            say(f"warning: checkpoint {error.path} is damaged ({error.reason}): reading the one before it")
    if policies.keeps_start(stage.rules):
        held = kept_policy(run.model, checkpoints, REFERENCE, state.params["policy"], stage.name)
    checkpoints.close()
    return Restored(folder, run, stage, notes["step"], state, held)


def _stage_of(run: Run, folder: Path, name: str, asked: str) -> Stage:
    stage = next((stage for stage in run.stages if stage.name == name), None)
    if stage is None:
        raise UserError(f"{asked} is from the stage {name!r}, which {folder / CONFIG} does not have.")
    return stage


def open_run(path: str) -> Restored:
    """:func:`restore` for a command: compiled programs are kept in the run directory."""
    use_compilation_cache(_split(Path(path).absolute())[0] / CACHE)
    return restore(path)


def _split(path: Path) -> tuple[Path, int | None]:
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path, None


def read_config(folder: Path) -> configs.ConfigDict:
    """The config of a run directory.

    Raises:
      UserError: it has none, or a damaged one.
    """
    file = folder / CONFIG
    if not file.is_file():
        near = [other.name for other in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"{folder} is no run directory: it has no {CONFIG}.{close_matches(folder.name, near)}")
    return configs.read_json(file)

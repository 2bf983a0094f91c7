"""A trained run, read back from its directory: for evaluation, generation and notebooks."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from rlx import config as configs
from rlx.errors import UserError, close_matches
from rlx.models.lora import merge
from rlx.train import policies
from rlx.train.assemble import Run, Stage, assemble
from rlx.train.checkpoint import Checkpoints, Damaged
from rlx.train.fresh import make_blank
from rlx.train.kept import REFERENCE, kept_policy, restore_state
from rlx.train.log import say
from rlx.train.sharding import fewer, tree_shardings
from rlx.train.state import TrainState
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


def restore(path: str | os.PathLike[str], *, mesh: Mesh | None = None, optimizer: bool = True) -> Restored:
    """Reads the last good checkpoint of a run directory, with a warning where later ones are damaged, or the named one.

    Args:
      path: a run directory ``W``, or one of its checkpoints, ``W/checkpoints/00000120``.
      mesh: the devices that it is read onto, None: a mesh as that of the run, cut down where there are fewer devices.
      optimizer: False: its state, twice as much as the parameters, is not read, and ``opt_state`` holds shapes.

    Raises:
      UserError: there is no run or no checkpoint, or it is damaged.
    """
    folder, wanted = _split(Path(path).absolute())
    run = assemble_run(folder, mesh)
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    steps = checkpoints.steps()
    if not steps or (wanted is not None and wanted not in steps):
        has = f"it has {', '.join(f'{step:08d}' for step in steps)}" if steps else "it has none yet"
        raise UserError(f"--checkpoint={path}: no such checkpoint of {folder}; {has}.")
    without = () if optimizer else ("opt_state",)
    for number in [wanted] if wanted is not None else reversed(steps):
        try:
            notes = checkpoints.notes(number)
            stage = _stage_of(run, folder, notes["stage"], f"--checkpoint={path}")
            like = make_blank(run, stage, notes["examples"])
            state, held = restore_state(run.model, checkpoints, number, like, without=without), None
            break
        except Damaged as error:
            if number in (wanted, steps[0]) or error.path != checkpoints.path(number):
                raise
            say(f"warning: checkpoint {error.path} is damaged ({error.reason}): reading the one before it")
    if policies.keeps_start(stage.rules):
        held = kept_policy(run.model, checkpoints, REFERENCE, state.params["policy"], stage.name)
    checkpoints.close()
    return Restored(folder, run, stage, notes["step"], state, held)


def assemble_run(folder: Path, mesh: Mesh | None = None) -> Run:
    """What the config of a run describes, on ``mesh``, or on fewer devices than it trained on where there are fewer.

    Raises:
      UserError: it has no config, or a damaged one.
    """
    config = read_config(folder).to_dict()
    if mesh is not None:  # that of another run, over which the batches of this one need not divide
        return assemble({**config, "mesh": {}, "engine": "jit"}, to_train=False)._replace(mesh=mesh)
    own, count = config.get("mesh") or {}, jax.device_count()
    sizes = fewer(own, count)
    wanted, there = math.prod(own.values()), math.prod(sizes.values())  # of sizes that `fewer` has checked
    if wanted > there:
        say(f"{folder} ran on {wanted} devices: it is read onto {there} of the {count} here, mesh {sizes}")
        config["mesh"] = sizes
    return assemble(config, to_train=False)


def _stage_of(run: Run, folder: Path, name: str, asked: str) -> Stage:
    stage = next((stage for stage in run.stages if stage.name == name), None)
    if stage is None:
        raise UserError(f"{asked} is from the stage {name!r}, which {folder / CONFIG} does not have.")
    return stage


def open_run(path: str) -> Restored:
    """:func:`restore` for a command that trains no further: compiled programs are kept in the run directory."""
    use_compilation_cache(_split(Path(path).absolute())[0] / CACHE)
    return restore(path, optimizer=False)


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


def starting_policy(run: Run) -> Any:
    """The policy of ``config.start``, on the mesh of the run that starts from it; where the config names none
    ``Model.pretrained``, which is read when a state is made, or None.

    A scalar head and adapters that it lacks are new; adapters that the model lacks are merged.

    Raises:
      UserError: the run has another model.
    """
    if run.settings.start is None:
        return run.model.pretrained
    start, model = restore(run.settings.start, mesh=run.mesh, optimizer=False), run.model
    found = start.state.params["policy"]
    if start.run.model.lora is not None and model.lora is None:
        found = merge(start.run.model, found)
    blank = model.blank()
    of_run, wanted = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (found, blank))
    new = [path for path in wanted if path not in of_run]
    differing = [path for path, leaf in of_run.items() if path not in wanted or wanted[path].shape != leaf.shape]
    differing += [path for path in new if not any(part in jax.tree_util.keystr(path) for part in ("head", "lora"))]
    if differing:
        raise UserError(
            f"config.start={run.settings.start} has another model than config.model: they differ in "
            f"{jax.tree_util.keystr(differing[0])}."
        )
    if not new:
        return found
    places = tree_shardings(blank, model.partition and model.partition(blank), run.mesh)
    own = model.init(run.settings.seed) if model.shapes is None else model.init(run.settings.seed, places)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: of_run.get(path, leaf), own)

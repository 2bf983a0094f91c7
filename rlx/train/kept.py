"""Parameters beside the checkpoints of a run: what no stage moves is kept once, and the others leave it out."""

from __future__ import annotations

from typing import Any

from rlx.errors import UserError
from rlx.models import Model
from rlx.models.moving import join, moving, staying
from rlx.train.checkpoint import Checkpoints
from rlx.train.moved import part_of, whole
from rlx.train.state import TrainState

BASE = "base"
"""Name under which is kept what no stage of a run moves."""


def keep_base(model: Model, checkpoints: Checkpoints, policy: Any) -> None:
    """Keeps the leaves of the policy that no stage moves; nothing where all are moved."""
    if model.trainable is not None:
        checkpoints.save_policy(BASE, staying(model, policy))


def kept_policy(model: Model, checkpoints: Checkpoints, name: str, policy: Any, stage: str = "") -> Any:
    """A policy that was saved without what no stage moves, which it shares with ``policy``; None if there is none.

    Raises:
      UserError: it is damaged, or of another stage than ``stage``.
    """
    part = checkpoints.restore_policy(name, moving(model, policy), stage)
    return None if part is None else join(part, policy)


def restore_state(model: Model, checkpoints: Checkpoints, step: int, like: TrainState) -> TrainState:
    """The state of a checkpoint, in the shapes and shardings of ``like``.

    Raises:
      UserError: as ``Checkpoints.restore`` has it, or what no stage moves is gone.
    """
    part, policy = checkpoints.restore(step, part_of(model, like)).state, like.params["policy"]
    if model.trainable is None:
        return part
    base = checkpoints.restore_policy(BASE, staying(model, policy))
    if base is None:
        raise UserError(
            f"{checkpoints.folder / BASE} is gone, the parameters that no stage moves: restore it, or name another "
            "--workdir."
        )
    return whole(part, base)

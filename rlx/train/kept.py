"""Parameters beside the checkpoints of a run: what no stage moves is kept once, and the others leave it out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from rlx.errors import UserError
from rlx.method import Shapes
from rlx.models import Model
from rlx.models.moving import join, moving, staying
from rlx.train.assemble import Run
from rlx.train.checkpoint import Checkpoints
from rlx.train.moved import part_of, whole
from rlx.train.sharding import lay
from rlx.train.state import TrainState

REFERENCE, BEFORE_REWARD, REWARD_MODEL, BASE = "reference", "before_reward", "reward_model", "base"
"""Names under which are kept: the policy at the start of a stage; that of the stage before ``reward``, which goes on
after it; what the stage ``reward`` has trained; and what no stage of a run moves."""


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


def restore_state(
    model: Model, checkpoints: Checkpoints, step: int, like: TrainState, *, without: Collection[str] = ()
) -> TrainState:
    """The state of a checkpoint, in the shapes and shardings of ``like``, whose fields ``without`` are not read.

    Raises:
      UserError: as ``Checkpoints.restore`` has it, or what no stage moves is gone.
    """
    part, policy = checkpoints.restore(step, part_of(model, like), without=without).state, like.params["policy"]
    if model.trainable is None:
        return part
    base = checkpoints.restore_policy(BASE, staying(model, policy))
    if base is None:
        raise UserError(
            f"{checkpoints.folder / BASE} is gone, the parameters that no stage moves: restore it, or name another "
            "--workdir."
        )
    return whole(part, base)


def kept_reward_model(run: Run, checkpoints: Checkpoints, policy: Any) -> Any:
    """Parameters that the stage ``reward`` has trained, ``policy`` and ``method``; None before its end.

    ``policy`` has their shapes and shardings.
    """
    stage = next((stage for stage in run.stages if stage.name == "reward"), None)
    if stage is None:
        return None
    own, _ = stage.method.init(jax.random.PRNGKey(0), Shapes(run.model.hidden_size, run.model.vocab_size))
    everywhere = NamedSharding(run.mesh, PartitionSpec())
    like = {"policy": moving(run.model, policy), "method": jax.tree.map(lambda x: lay(x, everywhere), own)}
    found = checkpoints.restore_policy(REWARD_MODEL, like)
    return found and {**found, "policy": join(found["policy"], policy)}

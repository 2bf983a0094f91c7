"""The updates of a stage on host batches, by either engine: one jitted program on the mesh, or ``jax.pmap`` over it.

Under pmap every device has the whole state, and a copy of it lies on all of them between two updates; evaluations and
checkpoints see the plain state, which is the same for both engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from rlx.metrics import Metrics
from rlx.models import Model
from rlx.train.assemble import AXIS, Run, Stage
from rlx.train.loop import HostBatch
from rlx.train.sharding import put_batch, put_whole
from rlx.train.state import TrainState
from rlx.train.step import make_pmap_step, make_train_step


class Updates(NamedTuple):
    """What moves the state of a stage.

    Attributes:
      step: ``(state, batch) -> (state, metrics)``; the state, which is consumed, is as ``begin`` has made it.
      begin: from a plain state to one that updates take.
      plain: the way back; what ``begin`` was given is not touched by updates.
    """

    step: Callable[[TrainState, HostBatch], tuple[TrainState, Metrics]]
    begin: Callable[[TrainState], TrainState]
    plain: Callable[[TrainState], TrainState]


def make_updates(
    run: Run, stage: Stage, beside: Mapping[str, Any], models: Mapping[str, Model], prompt_length: int
) -> Updates:
    """The updates of a stage.

    Args:
      run: model, mesh and engine.
      stage: method and optimizer.
      beside: parameters of the roles that do not follow the policy.
      models: of the roles that have one of their own.
      prompt_length: positions of a row that hold the prompt.
    """
    options: dict[str, Any] = {
        "prompt_length": prompt_length,
        "micro_batches": stage.settings.micro_batches,
        "rules": stage.rules,
        "models": models,
        "guard": run.settings.guard,
        "shared_prefix": bool(stage.rollout and stage.rollout.shared_prefix),
    }
    if stage.mapped is not None:
        return _mapped(run, stage, beside, options)
    step = make_train_step(run.model, stage.method, stage.optimizer, mesh=run.mesh, **options)
    put = put_whole if stage.rollout else put_batch  # every process has the responses to all prompts
    return Updates(lambda state, batch: step(state, put(batch, run.mesh), beside), lambda state: state, lambda s: s)


def _mapped(run: Run, stage: Stage, beside: Mapping[str, Any], options: dict[str, Any]) -> Updates:
    devices, everywhere = run.mesh.size, NamedSharding(run.mesh, PartitionSpec())
    assert stage.mapped is not None  # the caller has looked

    def copied(x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x, (devices, *jnp.shape(x)))

    split = NamedSharding(run.mesh, PartitionSpec("data"))
    copy = jax.jit(lambda tree: jax.tree.map(copied, tree), out_shardings=split)
    first = jax.jit(lambda tree: jax.tree.map(lambda x: x[0], tree), out_shardings=everywhere)
    step = make_pmap_step(
        run.model, stage.mapped, stage.optimizer, axis_name=AXIS, devices=list(run.mesh.devices.flat), **options
    )
    roles = copy(dict(beside))

    def update(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        rows: dict[str, Any] = {name: array.reshape(devices, -1, *array.shape[1:]) for name, array in batch.items()}
        state, found = step(state, rows, roles)
        return state, first(found)

    def apart(move: Callable[[Any], Any]) -> Callable[[TrainState], TrainState]:
        """Memory of rollouts is the host's: no update reads it."""
        return lambda state: move(state._replace(memory={}))._replace(memory=state.memory)

    return Updates(update, apart(copy), apart(first))

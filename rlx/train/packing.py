"""Batches whose real tokens lie side by side: packed on the host, evaluated without padding, in their layout again.

A packed batch is the batch itself with :data:`ARRAYS` beside it, so that nothing but the forward pass knows of packing.
Every shard of every micro-batch has packed rows of its own: no hidden state leaves its device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rlx.data.packing import pack
from rlx.errors import UserError
from rlx.models.base import Model
from rlx.models.packing import unpack
from rlx.train import sharding
from rlx.train.blocks import block_of, integers
from rlx.train.rollout_settings import RolloutSettings
from rlx.train.settings import StageSettings

Arrays = dict[str, np.ndarray]

ARRAYS = ("packed_tokens", "packed_segments", "packed_index")
"""Rows of tokens and the number of each token's sequence ``[R, C]``; the place of each token of the response, and of
the one before it, in the rows of its shard, ``[B, K, 1 + M]``."""
PREFIXES = ("", "kl_", "rationale_")
"""Of the sequences that a batch may hold: ``kl_tokens`` have ``kl_packed_tokens``."""


@dataclasses.dataclass(frozen=True)
class PackingSettings:
    """The block ``packing`` of a stage.

    Attributes:
      multiple: the packed rows of a shard (and micro-batch) are filled up to a multiple of this, never to more than
        there are sequences; each number of rows is a program to compile.
      capacity: a packed row has room for so many sequences of full length. More of them pack closer; attention costs
        grow with it.
    """

    multiple: int = 4
    capacity: int = 1


def settings_of(block: Mapping[str, Any], name: str) -> PackingSettings | None:
    """The block ``packing`` of the stage ``name``, checked; None where it is empty.

    Raises:
      UserError: an unknown key, with close matches, or an impossible value.

    >>> settings_of({"multipel": 4}, "sft")
    Traceback (most recent call last):
    rlx.errors.UserError: config.sft.packing has an unknown key 'multipel'. Did you mean 'multiple'? ...
    """
    if not block:
        return None
    found = block_of(PackingSettings, block, f"{name}.packing")
    integers(f"config.{name}.packing", found, {"multiple": 1, "capacity": 1})
    return found


def check(block: Mapping[str, Any], name: str, rollout: RolloutSettings | None, model: Model) -> None:
    """Makes sure that a stage can be packed as its config says.

    Raises:
      UserError: as :func:`settings_of`; or the model, the rollouts or several processes do not go with it.
    """
    if settings_of(block, name) is None:
        return
    key = f"config.{name}.packing"
    if model.packed is None:
        raise UserError(f"{key} needs a model with Model.packed, which this one lacks: remove the block.")
    if rollout and rollout.evolution:
        raise UserError(f"{key} is not used: evolution takes no gradients of a loss.")
    if rollout and rollout.shared_prefix:
        raise UserError(
            f"{key} does not go with rollout.shared_prefix, which has rows of its own: leave out one of them."
        )
    if jax.process_count() > 1:
        raise UserError(f"{key} goes with one process, not {jax.process_count()}: they would differ in rows.")


def make_packer(block: StageSettings, name: str, *, prompt_length: int, mesh: Mesh) -> Callable[[Arrays], Arrays]:
    """What the stage ``name`` does with the host batch of an update: :func:`lay`, or nothing."""
    settings, parts = settings_of(block.packing, name), block.micro_batches
    if settings is None:
        return lambda batch: batch
    return lambda batch: lay(batch, settings, prompt_length=prompt_length, mesh=mesh, micro_batches=parts)


def lay(batch: Arrays, settings: PackingSettings, *, prompt_length: int, mesh: Mesh, micro_batches: int = 1) -> Arrays:
    """The batch with :data:`ARRAYS` of its sequences, all K of a row, and of the mismatched and the written ones.

    Args:
      batch: of one host, rows divide over ``micro_batches`` and the shards of the mesh.
      settings: sizes of the packed rows.
      prompt_length: positions of a row that hold the prompt.
      mesh: that the batch will be put on.
      micro_batches: that the step will cut it into.

    Raises:
      UserError: the rows do not divide.

    >>> tokens = np.array([[[0, 5, 6]], [[3, 4, 0]]])
    >>> batch = {"tokens": tokens, "valid": tokens > 0}
    >>> found = lay(batch, PackingSettings(), prompt_length=2, mesh=sharding.make_mesh())
    >>> print(found["packed_tokens"].tolist(), found["packed_index"].tolist())
    [[5, 6, 0], [3, 4, 0]] [[[0, 1]], [[4, 0]]]
    """
    shards = sharding.batch_shards(mesh)
    options = {"multiple": settings.multiple, "groups": shards * micro_batches}
    found: Arrays = {}
    for of in (of for of in PREFIXES if f"{of}tokens" in batch):
        tokens, valid = (_apart(batch[f"{of}{name}"], shards, micro_batches) for name in ("tokens", "valid"))
        rows = pack(tokens, valid, capacity=settings.capacity * tokens.shape[-1], **options)
        arrays = (rows.tokens, rows.segments, rows.index[..., prompt_length - 1 :])
        together = (_together(x, shards, micro_batches) for x in arrays)
        found |= dict(zip((f"{of}{name}" for name in ARRAYS), together, strict=True))
    return batch | found


def _apart(x: np.ndarray, shards: int, parts: int) -> np.ndarray:
    """Rows by shard and micro-batch; the step deals the rows of a shard out to its micro-batches in turn."""
    if len(x) % (shards * parts):
        raise UserError(f"{len(x)} rows do not divide over {shards} shards x {parts} micro-batches.")
    return x.reshape(shards, -1, parts, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def _together(x: np.ndarray, shards: int, parts: int) -> np.ndarray:
    """The inverse of :func:`_apart`."""
    return x.reshape(shards, parts, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def states(model: Model, params: Any, batch: Mapping[str, jax.Array], mesh: Mesh | None) -> tuple[jax.Array, jax.Array]:
    """Hidden states of a packed batch from the last token of the prompt on, ``[B, K, 1 + M, D]``, and the unembedding.

    At padding stands the state of another token, which nothing may read.

    Raises:
      UserError: the model has no such form.
    """
    if model.packed is None:
        raise UserError("packed rows need a model with such a form, and this one has no Model.packed.")
    tokens, segments, index = (sharding.constrain_rows(batch[name], mesh) for name in ARRAYS)
    hidden, unembedding = model.packed(params, tokens, segments)
    groups = 1 if mesh is None else sharding.batch_shards(mesh)
    hidden = unpack(sharding.constrain_rows(hidden, mesh), index, groups)
    return sharding.constrain_rows(hidden, mesh), unembedding

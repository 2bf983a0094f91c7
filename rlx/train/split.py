"""How a batch is cut into micro-batches: by rows or, where these are too few, by the responses of rows, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx.errors import UserError
from rlx.method import Method


class Split(NamedTuple):
    """A cut of ``[B, ...]`` arrays.

    Attributes:
      parts: micro-batches.
      group: K where each of the K responses of a row becomes a row of its own, 1 where rows stay whole.
    """

    parts: int
    group: int = 1

    def cut(self, x: jax.Array) -> jax.Array:
        """``[B, ...] -> [parts, B / parts, ...]``, dealt out in turn so that each part is spread over all shards.

        Where responses are cut apart, ``[B, K, ...]`` counts as ``[B K, 1, ...]``, and what a row has, each of its
        responses has.

        >>> Split(2, group=2).cut(jnp.arange(4).reshape(2, 2)).tolist()
        [[[0], [2]], [[1], [3]]]
        """
        if self.group > 1:
            of_responses = x.ndim > 1 and x.shape[1] == self.group
            x = x.reshape(-1, 1, *x.shape[2:]) if of_responses else jnp.repeat(x, self.group, 0)
        return jnp.moveaxis(x.reshape(x.shape[0] // self.parts, self.parts, *x.shape[1:]), 1, 0)

    def join(self, x: jax.Array) -> jax.Array:
        """The inverse of :meth:`cut`, of an array that responses have."""
        x = jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])
        return x if self.group == 1 else x.reshape(-1, self.group, *x.shape[2:])


def split_of(method: Method, batch: Mapping[str, jax.Array], parts: int, shards: int) -> Split:
    """The cut of a batch whose parts are all of one size on all devices.

    Args:
      method: :attr:`~rlx.method.Method.separable` ones may have the responses of a row in different parts.
      batch: arrays ``[B, K, ...]``.
      parts: micro-batches.
      shards: devices that rows are spread over.

    Raises:
      UserError: the rows do not divide evenly.
    """
    rows, group = batch["tokens"].shape[:2]
    if not rows % (parts * shards):
        return Split(parts)
    if method.separable and not rows % shards and not rows * group % (parts * shards):
        return Split(parts, group)
    raise UserError(
        f"batch_size {rows} does not divide into {parts * shards} equal parts (micro-batches x data x fsdp): "
        f"use a multiple of {parts * shards}."
    )


def cut_batch(split: Split, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """All arrays of a batch, cut.

    Raises:
      UserError: packed rows would have to be taken apart.
    """
    if split.group > 1 and any("packed" in name for name in batch):
        raise UserError(
            "packing lays whole rows of a batch, and these micro-batches are parts of rows: use a batch_size that "
            "divides by micro-batches x data x fsdp, or no packing."
        )
    return {name: split.cut(x) for name, x in batch.items()}

"""Several sequences in one row: attention stays within a sequence and rotary positions start anew with each.

``rlx.data.packing`` makes the rows on the host; :func:`unpack` brings what is computed on them back to the layout of
the batch, so that losses do not know of packing.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlx.errors import UserError
from rlx.models.base import Params
from rlx.models.layers import within


def segment_mask(segments: jax.Array, window: int = 0) -> tuple[jax.Array, jax.Array]:
    """Which keys each query sees, bool ``[N, T, T]``, and positions within the sequence, int32 ``[N, T]``.

    Args:
        segments: int32 ``[N, T]``: tokens of one sequence stand side by side and have one number, 0 is no token.
        window: keys that a query sees at most, itself and those before it; 0: all.

    >>> mask, positions = segment_mask(jnp.array([[1, 1, 1, 2, 2, 0]]))
    >>> print(positions[0], mask[0, 4].astype(int))
    [0 1 2 0 1 0] [0 0 0 1 1 0]
    """
    steps = jnp.arange(segments.shape[-1], dtype=jnp.int32)
    begins = segments != jnp.pad(segments, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    positions = steps - jax.lax.cummax(jnp.where(begins, steps, 0), axis=1)
    same = segments[:, :, None] == segments[:, None, :]
    mask = same & (steps[:, None] >= steps) & (segments > 0)[:, None, :]
    return (mask & within(window, steps, steps) if window else mask), positions


def apply(module: Callable, params: Params, tokens: jax.Array, segments: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The transformer on packed rows; see :class:`rlx.models.base.PackedPolicy`."""
    model = module(params)
    positions = segment_mask(segments)[1]
    hidden = model.encode(tokens, positions, lambda window: segment_mask(segments, window)[0])
    return hidden, model.output_matrix()


def unpack(x: jax.Array, index: jax.Array, groups: int = 1) -> jax.Array:
    """What was computed on packed rows, in the layout of the batch.

    Hidden states, or numbers per token: with a vocabulary that is large beside the model, take the token statistics
    of the packed rows (targets are ``ops.shift`` of their tokens), ``ops.unshift`` and unpack these, and no padding
    passes through the vocabulary.

    Args:
        x: ``[R, C, ...]`` of the rows.
        index: int32 ``[B, ..., T]``, where each token went (``rlx.data.packing.Packed.index``), or a slice of it such
            as ``index[..., prompt_length - 1 :]``.
        groups: into how many parts rows and batch were split: each part stays on its device.

    Returns:
        ``[B, ..., T, ...]``; at padding, whatever stands first in the part.

    Raises:
        UserError: rows or batch do not divide into ``groups``.

    >>> print(unpack(jnp.array([[10, 11, 20]]), jnp.array([[0, 1], [2, 0]])))
    [[10 11]
     [20 10]]
    """
    if x.shape[0] % groups or index.shape[0] % groups:
        raise UserError(f"{x.shape[0]} packed rows and a batch of {index.shape[0]} do not both divide by {groups=}")
    rest = x.shape[2:]
    parts = x.reshape(groups, -1, *rest)
    found = jax.vmap(lambda part, i: part[i])(parts, index.reshape(groups, -1))
    return found.reshape(*index.shape, *rest)

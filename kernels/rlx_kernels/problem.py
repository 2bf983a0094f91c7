"""What a body is given and what it gives back: local arrays, rows first, the vocabulary last."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx_kernels import core


class Head(NamedTuple):
    """Logits ``[N, V]``, or what they are the product of: ``x [N, D]``, ``w [D, V]`` and maybe ``bias [V]``."""

    logits: Any = None
    x: Any = None
    w: Any = None
    bias: Any = None

    @property
    def rows(self) -> int:
        """N."""
        return (self.x if self.logits is None else self.logits).shape[0]

    @property
    def columns(self) -> int:
        """V, of this shard of the vocabulary."""
        return (self.w if self.logits is None else self.logits).shape[1]

    @property
    def dtype(self):
        """Type of the rows."""
        return (self.x if self.logits is None else self.logits).dtype


class Problem(NamedTuple):
    """Arrays of one call, or the gradients with respect to them.

    ``targets [N, 1]`` count in the whole vocabulary, of which this shard begins at ``offset``. ``y`` are numbers of the
    tokens, ``[N, V]`` or ``[1, V]``; ``temperature [N, 1]`` replaces that of the Spec; rows where ``live [N, 1]`` is
    False get no gradient; with ``count``, rows from there on are not looked at and their results do not matter.
    """

    head: Head
    targets: Any = None
    other: Head | None = None
    y: Any = None
    temperature: Any = None
    live: Any = None
    offset: Any = 0
    count: Any = None


def raw_logits(head: Head) -> jax.Array:
    """Logits before soft-cap and temperature, in float32 for half precision."""
    wide = core.accumulation_dtype(head.dtype)
    if head.logits is not None:
        return head.logits.astype(wide)
    raw = jnp.dot(head.x, head.w, preferred_element_type=wide)
    return raw if head.bias is None else raw + head.bias.astype(wide)

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
    tokens, ``[N, V]``, or those of all rows: ``[V]`` in the frame, ``[1, V]`` for a body. ``temperature [N, 1]``
    replaces that of the Spec. Rows where ``live [N, 1]`` is False get no gradient; with ``count``, rows from there on
    are not looked at and their results do not matter.
    """

    head: Head
    targets: Any = None
    other: Head | None = None
    y: Any = None
    temperature: Any = None
    live: Any = None
    offset: Any = None
    count: Any = None


def vary(tree: Any, *like: Any) -> Any:
    """``tree``, inside a ``shard_map`` typed as varying over the mapped axes that the arrays of ``like`` vary over.

    A select is typed so wherever an operand is, under every version of jax; XLA folds it away.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    leaves = [leaf for leaf in jax.tree.leaves(like) if jnp.ndim(leaf)]
    return jax.tree.map(lambda x: jnp.where(True, x, sum(leaf.ravel()[0].astype(x.dtype) for leaf in leaves)), tree)


def zeros_like(shapes: Any, *like: Any) -> Any:
    """Zeros to collect results in, typed as :func:`vary` does."""
    return vary(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), *like)


def to_bits(tree: Any) -> Any:
    """Half-precision arrays as integers, on a CPU: it writes slices of those in place, of half precision it copies all.

    Other platforms keep them.
    """
    if jax.default_backend() != "cpu":
        return tree
    half = (jnp.bfloat16, jnp.float16)
    return jax.tree.map(lambda x: jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype in half else x, tree)


def from_bits(tree: Any, like: Any) -> Any:
    """Undoes :func:`to_bits` for arrays of the types of ``like``."""
    return jax.tree.map(lambda x, y: x if x.dtype == y.dtype else jax.lax.bitcast_convert_type(x, y.dtype), tree, like)


def raw_logits(head: Head) -> jax.Array:
    """Logits before soft-cap and temperature, in float32 for half precision."""
    wide = core.accumulation_dtype(head.dtype)
    if head.logits is not None:
        return head.logits.astype(wide)
    raw = jnp.dot(head.x, head.w, preferred_element_type=wide)
    return raw if head.bias is None else raw + head.bias.astype(wide)


def temperature_of(problem: Problem, spec: core.Spec) -> Any:
    """That of each row, or the one of all."""
    return spec.temperature if problem.temperature is None else problem.temperature


def logits_of(problem: Problem, head: Head, spec: core.Spec) -> jax.Array:
    """Logits ``[N, V]`` after soft-cap and temperature."""
    return core.transform(raw_logits(head), temperature_of(problem, spec), spec.softcap)

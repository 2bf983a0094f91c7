"""Statistics of the next-token distribution, log-probability, entropy and kin: from logits or from hidden states."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rlx.errors import UserError, close_matches

BATCH_AXES = ("data", "fsdp")
VOCAB_AXIS = "model"
IMPLEMENTATIONS = ("xla", "reference")


class TokenStatistics(NamedTuple):
    """Arrays shaped like ``targets`` (float32, float64 for float64 inputs), 0 where masked, None if not asked for.

    With logits ``z`` (after soft-cap and temperature) and ``p = softmax(z)``:

    Attributes:
        logp: ``log p(target)``, natural logarithm.
        entropy: ``-sum p log p`` in nats.
        lse: ``log sum exp z``.
        mean: ``sum p z``.
        variance: ``sum p (z - mean)^2``, which is the variance of ``log p``.
        max_logp: ``max log p``; its gradient goes to the first of equal maxima.
        renyi2: Renyi entropy of order 2, ``-log sum p^2``, in nats.
        kl: ``KL(other || logits)``, the expectation under ``other``; only with ``other``.
    """

    logp: jax.Array | None = None
    entropy: jax.Array | None = None
    lse: jax.Array | None = None
    mean: jax.Array | None = None
    variance: jax.Array | None = None
    max_logp: jax.Array | None = None
    renyi2: jax.Array | None = None
    kl: jax.Array | None = None


def token_statistics(
    logits: jax.Array,
    targets: jax.Array,
    *,
    where: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    softcap: float | None = None,
    statistics: tuple[str, ...] = ("logp",),
    other: jax.Array | None = None,
    implementation: str | None = None,
) -> TokenStatistics:
    """Statistics of given logits, differentiable in ``logits``, ``temperature`` and ``other``.

    Args:
        logits: ``[..., V]``; -inf marks impossible tokens.
        targets: int ``[...]``.
        where: bool ``[...]``; masked positions give 0 and receive no gradient, whatever they hold.
        temperature: the logits are divided by it, after the soft-cap.
        softcap: ``softcap * tanh(logits / softcap)``.
        statistics: which fields of ``TokenStatistics`` to compute.
        other: ``[..., V]`` logits of another policy, same soft-cap and temperature: needed by (only) ``'kl'``.
        implementation: ``'reference'`` is plain autodiff; the default has a hand-written gradient.

    >>> out = token_statistics(jnp.zeros((1, 4)), jnp.array([2]), statistics=("logp", "entropy"))
    >>> print(f"{out.logp[0]:.4f} {out.entropy[0]:.4f}")
    -1.3863 1.3863
    """
    names = _check(statistics, implementation, other is not None)
    _check_shape("logits", logits.shape[:-1], targets)
    logits = _unmask(logits, where)
    z = _scaled(logits, temperature, softcap)
    plain = tuple(name for name in names if name != "kl")
    if implementation == "reference":
        from rlx_kernels import reference

        out = reference.statistics(z, targets, plain)
    else:
        out = dict(_statistics(z, targets, plain))
    if other is not None and "kl" in names:
        from rlx_kernels import reference

        out["kl"] = reference.kl(z, _scaled(_unmask(other, where), temperature, softcap))
    return _finish(out, where)


def linear_token_statistics(
    hidden: jax.Array,
    unembedding: jax.Array,
    targets: jax.Array,
    *,
    where: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    softcap: float | None = None,
    bias: jax.Array | None = None,
    statistics: tuple[str, ...] = ("logp", "entropy"),
    implementation: str | None = None,
    mesh: Mesh | None = None,
    rows: int | None = None,
) -> TokenStatistics:
    """Statistics of the logits ``hidden @ unembedding + bias``, which are never stored as a whole.

    Differentiable in ``hidden``, ``unembedding`` and ``bias``. Half-precision inputs give float32 statistics, and
    float32 sums of the gradients.

    Args:
        hidden: ``[N, ..., D]``; with a mesh, N is split over the axes 'data' and 'fsdp'.
        unembedding: ``[D, V]``; with a mesh, V is split over the axis 'model'.
        targets: int ``[N, ...]``.
        where: bool ``[N, ...]``; masked positions give 0 and receive no gradient, whatever they hold.
        temperature: the logits are divided by it, after the soft-cap. A traced array excludes ``softcap``.
        softcap: ``softcap * tanh(logits / softcap)``.
        bias: ``[V]``; -inf marks impossible tokens.
        statistics: which fields of ``TokenStatistics`` to compute, all but ``kl``.
        implementation: ``'xla'`` (the default) works in row chunks, ``'reference'`` by autodiff on the whole logits.
        mesh: runs the chunks inside ``shard_map``: no gathering of tokens, one sum of the gradient.
        rows: rows of a chunk, by default picked from the bytes of its logits.

    >>> out = linear_token_statistics(jnp.ones((2, 3)), jnp.zeros((3, 8)), jnp.array([1, 7]))
    >>> print(out.logp.round(4), out.entropy.round(4))
    [-2.0794 -2.0794] [2.0794 2.0794]
    """
    names = _check(statistics, implementation, False)
    _check_shape("hidden", hidden.shape[:-1], targets)
    if hidden.shape[-1] != unembedding.shape[0]:
        raise UserError(f"hidden {hidden.shape} and unembedding {unembedding.shape} differ in D")
    hidden = _unmask(hidden, where)
    if not isinstance(temperature, (int, float)):
        if softcap is not None:
            raise UserError("temperature must be a Python number when softcap is used")
        hidden, bias = hidden / temperature, None if bias is None else bias / temperature
        temperature = 1.0
    x, flat = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if implementation == "reference":
        from rlx_kernels import reference

        out = reference.linear_statistics(x, unembedding, bias, flat, names, temperature, softcap)
    else:
        out = _chunked(x, unembedding, bias, flat, names, temperature, softcap, mesh, rows, hidden.shape[0])
    return _finish({name: value.reshape(targets.shape) for name, value in out.items()}, where)


def _chunked(x, w, bias, targets, names, temperature, softcap, mesh, rows, batch):
    from rlx_kernels import xla

    axes, vocab_axis = _split(mesh, batch, w.shape[1])
    columns = w.shape[1] // (mesh.shape[vocab_axis] if vocab_axis else 1)
    rows = rows or xla.pick_rows(columns)
    mesh = mesh if axes or vocab_axis else None
    options = xla.Options(names, temperature, softcap, rows, mesh, axes, vocab_axis)
    return xla.linear_statistics(x, w, bias, targets, options)


def _split(mesh: Mesh | None, batch: int, vocab: int) -> tuple[tuple[str, ...], str | None]:
    """The mesh axes over which rows and vocabulary are split; those that do not divide evenly are left whole."""
    if mesh is None:
        return (), None
    axes = tuple(axis for axis in BATCH_AXES if mesh.shape.get(axis, 1) > 1)
    if batch % math.prod(mesh.shape[axis] for axis in axes):
        axes = ()
    size = mesh.shape.get(VOCAB_AXIS, 1)
    return axes, VOCAB_AXIS if size > 1 and vocab % size == 0 else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _statistics(z: jax.Array, targets: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
    return _statistics_forward(z, targets, names)[0]


def _statistics_forward(z, targets, names):
    from rlx_kernels import core

    sums = core.sums(z, names)
    inside = (targets >= 0) & (targets < z.shape[-1])
    target_logit = jnp.take_along_axis(z, jnp.where(inside, targets, 0)[..., None], -1)[..., 0]
    out = core.finalise(sums, jnp.where(inside, target_logit, jnp.nan), names)
    return out, (z, targets, sums)


def _statistics_backward(names, residuals, cotangents):
    from rlx_kernels import core

    z, targets, sums = residuals
    return core.dlogits(z, targets, sums, core.coefficients(sums, cotangents)), None


_statistics.defvjp(_statistics_forward, _statistics_backward)


def _scaled(logits, temperature, softcap):
    from rlx_kernels import core

    return core.transform(logits.astype(core.accumulation_dtype(logits.dtype)), temperature, softcap)


def _unmask(x: jax.Array, where: jax.Array | None) -> jax.Array:
    """Zeros in masked rows, so that nothing they hold reaches a value or a gradient."""
    return x if where is None else jnp.where(where[..., None], x, 0)


def _finish(out: dict[str, jax.Array], where: jax.Array | None) -> TokenStatistics:
    return TokenStatistics(**{k: v if where is None else jnp.where(where, v, 0) for k, v in out.items()})


def _check(statistics, implementation: str | None, other: bool) -> tuple[str, ...]:
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    known = [name for name in TokenStatistics._fields if name != "kl" or other]
    for name in names:
        if name == "kl" and not other:
            raise UserError("the statistic 'kl' needs the logits of another policy: token_statistics(..., other=)")
        if name not in known:
            raise UserError(f"unknown statistic {name!r}.{close_matches(name, known)} Known: {', '.join(known)}")
    if implementation not in (None, *IMPLEMENTATIONS):
        hint = close_matches(implementation, IMPLEMENTATIONS)
        raise UserError(f"unknown implementation {implementation!r}.{hint} Known: {', '.join(IMPLEMENTATIONS)}")
    return names


def _check_shape(name: str, leading: tuple[int, ...], targets: jax.Array) -> None:
    if leading != targets.shape:
        raise UserError(f"targets {targets.shape} must have the leading shape {leading} of {name}")

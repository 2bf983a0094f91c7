r"""The mathematics shared by every body: streaming sums over the vocabulary, their merge, and the gradient of logits.

With logits ``z``, their maximum ``m`` and ``u = z - m``, a row keeps ``s = sum e^u``, ``a = sum e^u u``,
``b = sum e^u u^2`` and ``q = sum e^{2u}``. Everything is finalised from these shifted sums, never as a difference of
large numbers, so a common offset of the logits costs no precision. Here "last axis" is the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

STATISTICS = ("logp", "entropy", "lse", "mean", "variance", "max_logp", "renyi2")
Rows = Any  # one number for each row, or None where no statistic asks for it
_LOWEST = -1e30  # finite stand-in for the maximum of a row of -inf, so that u = z - m stays -inf


class Sums(NamedTuple):
    """Row sums about the maximum ``m``; ``None`` where no statistic needs them. ``top`` is the index of ``m``."""

    m: jax.Array
    s: jax.Array
    a: Rows = None
    b: Rows = None
    q: Rows = None
    top: Rows = None


def accumulation_dtype(dtype) -> jnp.dtype:
    """float32 for half precision, unchanged for wider types.

    >>> print(accumulation_dtype(jnp.bfloat16), accumulation_dtype(jnp.float32))
    float32 float32
    """
    return jnp.promote_types(dtype, jnp.float32)


def transform(raw: jax.Array, temperature: float = 1.0, softcap: float | None = None) -> jax.Array:
    """``softcap * tanh(raw / softcap) / temperature``; cap first, and -inf (a masked token) stays -inf.

    >>> print(transform(jnp.array([2.0, -jnp.inf]), temperature=2.0))
    [  1. -inf]
    """
    if softcap is not None:
        raw = jnp.where(jnp.isneginf(raw), raw, softcap * jnp.tanh(raw / softcap))
    return raw if isinstance(temperature, (int, float)) and temperature == 1 else raw / temperature


def transform_gradient(dz: jax.Array, raw: jax.Array, temperature: float, softcap: float | None) -> jax.Array:
    """Pulls a gradient with respect to ``transform(raw)`` back to ``raw``."""
    dz = dz if temperature == 1 else dz / temperature
    return dz if softcap is None else dz * (1 - jnp.tanh(raw / softcap) ** 2)


def _times(weight: jax.Array, factor: jax.Array) -> jax.Array:
    """``weight * factor`` with ``0 * inf = 0``; a NaN weight stays NaN."""
    return jnp.where(weight == 0, 0, weight * factor)


def sums(z: jax.Array, statistics: tuple[str, ...]) -> Sums:
    """The sums over the last axis that ``statistics`` need."""
    m = jnp.maximum(z.max(-1), _LOWEST)
    u = z - m[..., None]
    e = jnp.exp(u)
    second = _times(e, u * u).sum(-1) if "variance" in statistics else None
    return Sums(
        m,
        e.sum(-1),
        _times(e, u).sum(-1) if {"entropy", "mean", "variance"} & set(statistics) else None,
        second,
        (e * e).sum(-1) if "renyi2" in statistics else None,
        jnp.argmax(z, -1).astype(jnp.int32) if "max_logp" in statistics else None,
    )


def rescale(x: Sums, m: jax.Array) -> Sums:
    """The same sums about another maximum ``m >= x.m``."""
    d: Any = jnp.maximum(x.m - m, -1e4)  # finite, so that d * 0 is 0
    f = jnp.exp(d)
    return Sums(
        m,
        f * x.s,
        None if x.a is None else f * (x.a + d * x.s),
        None if x.b is None else f * (x.b + 2 * d * x.a + d * d * x.s),
        None if x.q is None else f * f * x.q,
        x.top,
    )


def merge(x: Sums, y: Sums) -> Sums:
    """Sums of the union of two disjoint parts of the vocabulary; ``top`` must count in the whole vocabulary.

    >>> whole = sums(jnp.array([1.0, 2.0, 3.0]), ("entropy",))
    >>> parts = merge(sums(jnp.array([1.0]), ("entropy",)), sums(jnp.array([2.0, 3.0]), ("entropy",)))
    >>> print(jnp.allclose(whole.s, parts.s), jnp.allclose(whole.a, parts.a))
    True True
    """
    m = jnp.maximum(x.m, y.m)
    top = None if x.top is None else jnp.where(x.m >= y.m, x.top, y.top)
    x, y = rescale(x, m), rescale(y, m)
    a, b, q = (None if u is None else u + v for u, v in ((x.a, y.a), (x.b, y.b), (x.q, y.q)))
    return Sums(m, x.s + y.s, a, b, q, top)


def merge_shards(x: Sums, axis_name: str) -> Sums:
    """Sums over a vocabulary that is split over the mapped axis ``axis_name``."""
    m = jax.lax.pmax(x.m, axis_name)
    top = x.top
    if top is not None:
        top = jax.lax.pmin(jnp.where(x.m == m, top, jnp.iinfo(top.dtype).max), axis_name)
    parts = rescale(x, m)
    total = {k: jax.lax.psum(v, axis_name) for k in "sabq" if (v := getattr(parts, k)) is not None}
    return Sums(m=m, top=top, **total)


def _safe_log(x: jax.Array) -> jax.Array:
    """``log x``, and 0 for 0: only rows without any possible token have ``s = 0``."""
    return jnp.log(jnp.where(x == 0, 1, x))


def finalise(x: Sums, target_logit: jax.Array, statistics: tuple[str, ...]) -> dict[str, jax.Array]:
    """Statistics of each row. A row of -inf has logp, lse and max_logp -inf, everything else 0."""
    log_s, possible = _safe_log(x.s), x.s != 0
    ratio: Rows = None if x.a is None else x.a / jnp.where(possible, x.s, 1)
    make = {
        "logp": lambda: jnp.where(possible, (target_logit - x.m) - log_s, -jnp.inf),
        "entropy": lambda: jnp.where(possible, jnp.maximum(log_s - ratio, 0), 0),
        "lse": lambda: jnp.where(possible, x.m + log_s, -jnp.inf),
        "mean": lambda: jnp.where(possible, x.m + ratio, 0),
        "variance": lambda: jnp.maximum(x.b / jnp.where(possible, x.s, 1) - ratio * ratio, 0),
        "max_logp": lambda: jnp.where(possible, -log_s, -jnp.inf),
        "renyi2": lambda: jnp.where(possible, 2 * log_s - _safe_log(x.q), 0),
    }
    return {name: make[name]() for name in statistics}


class Coefficients(NamedTuple):
    r"""``dz_j = target 1[j=t] + top 1[j=top] + p_j (c0 + c1 v_j + c2 v_j^2 + cq p_j / sum p^2)``, ``v = z - E z``."""

    c0: jax.Array
    c1: Rows
    c2: Rows
    cq: Rows
    target: Rows
    top: Rows


def coefficients(x: Sums, cotangents: Mapping[str, jax.Array]) -> Coefficients:
    """Row coefficients of the gradient; rows without a possible token get 0."""
    possible = x.s != 0
    g = {name: jnp.where(possible, value, 0) for name, value in cotangents.items()}
    c0 = sum(g[k] for k in ("lse", "mean") if k in g) - sum(g[k] for k in ("logp", "max_logp") if k in g)
    c1: Rows = None
    c2: Rows = None
    cq: Rows = None
    if {"entropy", "mean", "variance"} & set(g):
        c1 = sum(g[k] for k in ("mean",) if k in g) - sum(g[k] for k in ("entropy",) if k in g)
    if "variance" in g:
        s = jnp.where(possible, x.s, 1)
        c0 = c0 - g["variance"] * (x.b / s - (x.a / s) ** 2)
        c1, c2 = c1 + 2 * g["variance"], g["variance"]
    if "renyi2" in g:
        c0, cq = c0 + 2 * g["renyi2"], -2 * g["renyi2"]
    return Coefficients(jnp.broadcast_to(c0, x.s.shape), c1, c2, cq, g.get("logp"), g.get("max_logp"))


def dlogits(z: jax.Array, targets: jax.Array, x: Sums, c: Coefficients) -> jax.Array:
    """Gradient with respect to the logits ``z [..., V]`` of rows with (global) sums ``x``.

    ``targets`` counts from the first column of ``z``; out of range means that no column is the target.
    """
    u = z - x.m[..., None]
    p = jnp.exp(u - _safe_log(x.s)[..., None])
    inner = c.c0[..., None]
    if c.c1 is not None:
        v = u - (x.a / jnp.where(x.s == 0, 1, x.s))[..., None]
        slope = c.c1[..., None] if c.c2 is None else c.c1[..., None] + c.c2[..., None] * v
        inner = inner + slope * v
    if c.cq is not None:
        inner = inner + (c.cq * x.s**2 / jnp.where(x.q == 0, 1, x.q))[..., None] * p
    dz = p * inner if c.c1 is None else _times(p, inner)
    columns = jax.lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1)
    for index, value in ((targets, c.target), (x.top, c.top)):
        if value is not None:
            dz = dz + jnp.where(columns == index[..., None], value[..., None], 0)
    return dz

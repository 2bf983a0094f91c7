r"""The mathematics shared by every body: sums of a tile of logits, their merge, the statistics.

The gradient of a tile is in :mod:`rlx_kernels.gradients`.

With logits ``z``, their maximum ``m`` and ``u = z - m``, a row keeps ``s = sum e^u``, ``a = sum e^u u`` and kin.
Everything is finalised from these shifted sums, never as a difference of large numbers, so a common offset of the
logits costs no precision. The vocabulary is the last axis of a tile; a number of a row is a column ``[..., 1]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Rows = Any  # one number for each row, or None where no statistic asks for it
LOWEST = -1e30  # finite stand-in for the maximum of a row of -inf, so that u = z - m stays -inf

NEEDS: dict[str, tuple[str, ...]] = {
    "logp": ("t",),
    "entropy": ("a",),
    "lse": (),
    "mean": ("a",),
    "variance": ("a", "b"),
    "covariance": ("a", "ay", "auy"),
    "renyi2": ("q",),
    "max_logp": ("top",),
    "entropy_change": ("t", "a", "q", "q1"),
    "tsallis": ("r",),
    "kl": ("m2", "s2", "x2"),
    "reverse_kl": ("m2", "s2", "x"),
    "js": ("m2", "s2", "j", "j2"),
    "top_p_entropy": ("top_p",),
    "top_k_entropy": ("top_k",),
}
"""The sums, beside ``m`` and ``s``, that each statistic is made of."""

STATISTICS = tuple(NEEDS)
SWEPT = ("m", "s", "a", "b", "q", "q1", "r", "ay", "auy", "t", "top", "m2", "s2", "x", "x2")
"""Sums that one sweep gives, in the order in which kernels write them."""
PAIRED = ("kl", "reverse_kl", "js")
"""Statistics of two policies."""
WHOLE_ROW = ("js", "top_p_entropy", "top_k_entropy")
"""Statistics that no single sweep over the vocabulary can give."""


class Spec(NamedTuple):
    """What is fixed at trace time. ``order`` is Tsallis' q, ``rule`` that of a nucleus."""

    statistics: tuple[str, ...]
    temperature: float = 1.0
    softcap: float | None = None
    top_p: float = 0.8
    rule: str = "crossing"
    top_k: int = 20
    order: float = 2.0

    def needs(self, *names: str) -> bool:
        """Whether a statistic asked for is made of any of these sums."""
        return any(name in NEEDS[statistic] for statistic in self.statistics for name in names)

    @property
    def second_look(self) -> bool:
        """Whether a statistic needs the sums of the whole row before a second look at its logits."""
        return any(statistic in WHOLE_ROW for statistic in self.statistics)


class Kept(NamedTuple):
    """The most probable tokens: those with a larger ``key``, of equal ones those before ``end``; their sums."""

    key: jax.Array
    end: jax.Array
    s: jax.Array
    a: jax.Array


class Sums(NamedTuple):
    """Row sums about the maximum ``m``; ``None`` where no statistic needs them.

    ``s a b`` are ``sum e^u u^k``; ``q q1`` are ``sum e^2u u^k``; ``r = sum e^(order u)``; ``ay auy`` are
    ``sum e^u u^k y``; ``t`` is the logit of the target and ``top`` the index of ``m``. Of the other policy: ``m2 s2``;
    ``x = sum e^u (u - u2)``, ``x2 = sum e^u2 (u2 - u)``; ``j j2`` are the divergences of both from their mean.
    ``top_p top_k`` are :class:`Kept`.
    """

    m: jax.Array
    s: jax.Array
    a: Rows = None
    b: Rows = None
    q: Rows = None
    q1: Rows = None
    r: Rows = None
    ay: Rows = None
    auy: Rows = None
    t: Rows = None
    top: Rows = None
    m2: Rows = None
    s2: Rows = None
    x: Rows = None
    x2: Rows = None
    j: Rows = None
    j2: Rows = None
    top_p: Any = None
    top_k: Any = None


class Lanes(NamedTuple):
    """How a body reduces a tile to rows and spreads rows over a tile: kernels with explicit layouts bring their own."""

    total: Callable[[jax.Array], jax.Array] = lambda tile: tile.sum(-1, keepdims=True)
    largest: Callable[[jax.Array], jax.Array] = lambda tile: tile.max(-1, keepdims=True)
    smallest: Callable[[jax.Array], jax.Array] = lambda tile: tile.min(-1, keepdims=True)
    spread: Callable[[jax.Array, jax.Array], jax.Array] = lambda rows, tile: rows


LANES = Lanes()


def accumulation_dtype(dtype) -> jnp.dtype:
    """float32 for half precision, unchanged for wider types.

    >>> print(accumulation_dtype(jnp.bfloat16), accumulation_dtype(jnp.float32))
    float32 float32
    """
    return jnp.promote_types(dtype, jnp.float32)


def transform(raw: jax.Array, temperature: Any = 1.0, softcap: float | None = None) -> jax.Array:
    """``softcap * tanh(raw / softcap) / temperature``; cap first, and -inf (a masked token) stays -inf.

    >>> print(transform(jnp.array([2.0, -jnp.inf]), temperature=2.0))
    [  1. -inf]
    """
    if softcap is not None:
        raw = jnp.where(raw == -jnp.inf, raw, softcap * jnp.tanh(raw / softcap))
    return raw if isinstance(temperature, (int, float)) and temperature == 1 else raw / temperature


def transform_gradient(dz: jax.Array, raw: jax.Array, temperature: Any, softcap: float | None) -> jax.Array:
    """Pulls a gradient with respect to ``transform(raw)`` back to ``raw``."""
    dz = dz if isinstance(temperature, (int, float)) and temperature == 1 else dz / temperature
    return dz if softcap is None else dz * (1 - jnp.square(jnp.tanh(raw / softcap)))


def times(weight: jax.Array, factor: jax.Array) -> jax.Array:
    """``weight * factor`` with ``0 * inf = 0``; a NaN weight stays NaN."""
    return jnp.where(weight == 0, 0, weight * factor)


def sums(
    z: jax.Array,
    spec: Spec,
    *,
    columns: jax.Array | None = None,
    targets: jax.Array | None = None,
    y: Any = None,
    other: Any = None,
    lanes: Lanes = LANES,
) -> Sums:
    """The sums of one tile ``[..., V]``.

    ``columns`` are the token ids of a tile, counted as ``targets [..., 1]`` are; without ``targets`` the caller fills
    in ``t``. ``y`` are numbers of the tokens, ``other`` the logits of the other policy.
    """
    total, spread = lanes.total, lanes.spread
    m = jnp.maximum(lanes.largest(z), LOWEST)
    u = z - spread(m, z)
    e = jnp.exp(u)
    found: dict[str, Any] = {"m": m, "s": total(e)}
    if spec.needs("a"):
        found["a"] = total(times(e, u))
    if spec.needs("b"):
        found["b"] = total(times(e, u * u))
    if spec.needs("q"):
        found["q"] = total(e * e)
    if spec.needs("q1"):
        found["q1"] = total(times(e * e, u))
    if spec.needs("r"):
        found["r"] = total(jnp.exp(spec.order * u))
    if spec.needs("ay"):
        found["ay"], found["auy"] = total(times(e, y)), total(times(e, u * y))
    if columns is not None and targets is not None and spec.needs("t"):
        found["t"] = total(jnp.where(columns == spread(targets, z), z, 0))
    if columns is not None and spec.needs("top"):
        found["top"] = lanes.smallest(jnp.where(z == spread(lanes.largest(z), z), columns, jnp.iinfo(jnp.int32).max))
    if other is not None and spec.needs("m2"):
        found["m2"] = m2 = jnp.maximum(lanes.largest(other), LOWEST)
        u2 = other - spread(m2, other)
        e2 = jnp.exp(u2)
        found["s2"] = total(e2)
        if spec.needs("x"):
            found["x"] = total(times(e, u - u2))
        if spec.needs("x2"):
            found["x2"] = total(times(e2, u2 - u))
    return Sums(**found)


def rescale(x: Sums, spec: Spec, m: jax.Array, m2: Rows = None) -> Sums:
    """The same sums about other maxima ``m >= x.m`` and ``m2 >= x.m2``."""
    d: Any = jnp.maximum(x.m - m, -1e4)  # finite, so that d * 0 is 0
    f = jnp.exp(d)
    new: dict[str, Any] = {"m": m, "s": f * x.s}
    if x.a is not None:
        new["a"] = f * (x.a + d * x.s)
    if x.b is not None:
        new["b"] = f * (x.b + 2 * d * x.a + d * d * x.s)
    if x.q is not None:
        new["q"] = f * f * x.q
    if x.q1 is not None:
        new["q1"] = f * f * (x.q1 + d * x.q)
    if x.r is not None:
        new["r"] = jnp.exp(spec.order * d) * x.r
    if x.ay is not None:
        new["ay"], new["auy"] = f * x.ay, f * (x.auy + d * x.ay)
    if m2 is not None:
        d2: Any = jnp.maximum(x.m2 - m2, -1e4)
        f2 = jnp.exp(d2)
        new["m2"], new["s2"] = m2, f2 * x.s2
        new["x"] = None if x.x is None else times(f, x.x + (d - d2) * x.s)
        new["x2"] = None if x.x2 is None else times(f2, x.x2 + (d2 - d) * x.s2)
    return x._replace(**new)


_ADDED = ("s", "a", "b", "q", "q1", "r", "ay", "auy", "t", "s2", "x", "x2")


def merge(x: Sums, y: Sums, spec: Spec) -> Sums:
    """Sums of the union of two disjoint parts of the vocabulary, the part of ``x`` first.

    >>> spec = Spec(("entropy",))
    >>> whole = sums(jnp.array([1.0, 2.0, 3.0]), spec)
    >>> parts = merge(sums(jnp.array([1.0]), spec), sums(jnp.array([2.0, 3.0]), spec), spec)
    >>> print(jnp.allclose(whole.s, parts.s), jnp.allclose(whole.a, parts.a))
    True True
    """
    m = jnp.maximum(x.m, y.m)
    m2 = None if x.m2 is None else jnp.maximum(x.m2, y.m2)
    top = None if x.top is None else jnp.where(x.m >= y.m, x.top, y.top)
    x, y = rescale(x, spec, m, m2), rescale(y, spec, m, m2)
    added = {k: a + getattr(y, k) for k in _ADDED if (a := getattr(x, k)) is not None}
    return x._replace(top=top, **added)


def merge_shards(x: Sums, spec: Spec, axis_name: str) -> Sums:
    """Sums over a vocabulary that is split over the mapped axis ``axis_name``; ``top`` counts in the whole of it."""
    m = jax.lax.pmax(x.m, axis_name)
    m2 = None if x.m2 is None else jax.lax.pmax(x.m2, axis_name)
    top = x.top
    if top is not None:
        top = jax.lax.pmin(jnp.where(x.m == m, top, jnp.iinfo(top.dtype).max), axis_name)
    x = rescale(x, spec, m, m2)
    added = {k: value for k in _ADDED if (value := getattr(x, k)) is not None}
    return x._replace(top=top, **jax.lax.psum(added, axis_name))


class Row(NamedTuple):
    """What a row's sums say: about ``m``, with ``p = e^u / s``. Rows without a possible token have ``s = 0``."""

    possible: jax.Array
    s: jax.Array
    log_s: jax.Array
    mean: Rows
    """``E u``, so that the logit above its mean is ``v = u - mean``."""
    square: Rows
    """``sum p^2``."""
    skew: Rows
    """``sum p^2 v``."""
    log_s2: Rows


def safe_log(x: jax.Array) -> jax.Array:
    """``log x``, and 0 for 0."""
    return jnp.log(jnp.where(x == 0, 1, x))


def row(x: Sums) -> Row:
    """Normalised sums."""
    possible = x.s != 0
    s = jnp.where(possible, x.s, 1)
    mean: Any = None if x.a is None else x.a / s
    square = None if x.q is None else x.q / (s * s)
    skew = None if x.q1 is None else (x.q1 - mean * x.q) / (s * s)
    return Row(possible, s, jnp.log(s), mean, square, skew, None if x.s2 is None else safe_log(x.s2))


def _entropy_of(kept: Kept) -> jax.Array:
    s = jnp.where(kept.s == 0, 1, kept.s)
    return jnp.where(kept.s == 0, 0, jnp.maximum(jnp.log(s) - kept.a / s, 0))


def finalise(x: Sums, spec: Spec) -> dict[str, jax.Array]:
    """Statistics of each row. A row of -inf has logp, lse and max_logp -inf, everything else 0."""
    r: Any = row(x)
    u: Any = None if x.t is None else x.t - x.m
    make: dict[str, Callable[[], Any]] = {
        "logp": lambda: jnp.where(r.possible, jnp.minimum(u - r.log_s, 0), -jnp.inf),
        "entropy": lambda: jnp.maximum(r.log_s - r.mean, 0),
        "lse": lambda: jnp.where(r.possible, x.m + r.log_s, -jnp.inf),
        "mean": lambda: jnp.where(r.possible, x.m + r.mean, 0),
        "variance": lambda: jnp.maximum(x.b / r.s - r.mean * r.mean, 0),
        "covariance": lambda: x.auy / r.s - r.mean * (x.ay / r.s),
        "renyi2": lambda: 2 * r.log_s - safe_log(x.q),
        "max_logp": lambda: jnp.where(r.possible, -r.log_s, -jnp.inf),
        "entropy_change": lambda: r.skew - times(jnp.exp(u - r.log_s), u - r.mean),
        "tsallis": lambda: -jnp.expm1(safe_log(x.r) - spec.order * r.log_s) / (spec.order - 1),
        "kl": lambda: _divergence(x.x2, x.s2, r.log_s, r.log_s2),
        "reverse_kl": lambda: _divergence(x.x, x.s, r.log_s2, r.log_s),
        "js": lambda: (x.j + x.j2) / 2,
        "top_p_entropy": lambda: _entropy_of(x.top_p),
        "top_k_entropy": lambda: _entropy_of(x.top_k),
    }
    return {name: make[name]() for name in spec.statistics}


def _divergence(cross: Any, s: Any, log_s: Any, log_s2: Any) -> jax.Array:
    """``sum p (log p - log p2)`` from ``cross = sum e^u (u - u2)`` of the first policy; 0 without a possible token."""
    value = jnp.maximum(cross / jnp.where(s == 0, 1, s) - log_s2 + log_s, 0)
    return jnp.where(s == 0, 0, value)


def log_mean(log_p: jax.Array, log_p2: jax.Array) -> jax.Array:
    """``log((p + p2) / 2)``, -inf where both are impossible."""
    largest = jnp.maximum(log_p, log_p2)
    gap = jnp.where(largest == -jnp.inf, 0, -jnp.abs(log_p - log_p2))
    return largest + jnp.log1p(jnp.exp(gap)) - jnp.log(2.0)

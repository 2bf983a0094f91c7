"""The gradient of a tile of logits: one formula for all statistics, from a few numbers of each row."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx_kernels import core


class Gradient(NamedTuple):
    r"""Rows that turn a tile of logits into its gradient; ``None`` terms are absent. With ``v = u - mean``:

    ``dz_j = target 1[j=t] + top 1[j=top] + p_j (c0 + c1 v_j + c2 v_j^2 + p_j (cq + cr v_j) + cy (1 + v_j)(y_j - ybar))
    + ct p_j^order`` and the terms of the other policy (weights ``kl``, ``reverse_kl``, ``js``) and of the most probable
    tokens (``top_p``, ``top_k``: their sums and the weight).
    """

    m: jax.Array
    log_s: jax.Array
    c0: jax.Array
    mean: core.Rows = None
    c1: core.Rows = None
    c2: core.Rows = None
    cq: core.Rows = None
    cr: core.Rows = None
    cy: core.Rows = None
    ybar: core.Rows = None
    ct: core.Rows = None
    target: core.Rows = None
    top: core.Rows = None
    top_index: core.Rows = None
    m2: core.Rows = None
    log_s2: core.Rows = None
    kl: core.Rows = None
    kl_value: core.Rows = None
    reverse_kl: core.Rows = None
    reverse_kl_value: core.Rows = None
    js: core.Rows = None
    j: core.Rows = None
    j2: core.Rows = None
    top_p: tuple[core.Kept, jax.Array] | None = None
    top_k: tuple[core.Kept, jax.Array] | None = None


def _polynomial(x: core.Sums, r: Any, g: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """``target`` and the coefficients of the polynomial in p and v, summed over the statistics asked for."""
    c: dict[str, Any] = {}

    def add(**terms: Any) -> None:
        c.update({name: c[name] + term if name in c else term for name, term in terms.items()})

    add(c0=jnp.zeros_like(x.s))
    if "logp" in g:
        add(c0=-g["logp"], target=g["logp"])
    if "max_logp" in g:
        add(c0=-g["max_logp"])
    if "lse" in g:
        add(c0=g["lse"])
    if "mean" in g:
        add(c0=g["mean"], c1=g["mean"])
    if "entropy" in g:
        add(c1=-g["entropy"])
    if "variance" in g:
        add(c0=-g["variance"] * (x.b / r.s - r.mean * r.mean), c1=2 * g["variance"], c2=g["variance"])
    if "renyi2" in g:
        add(c0=2 * g["renyi2"], cq=-2 * g["renyi2"] / jnp.where(r.possible, r.square, 1))
    if "covariance" in g:
        add(c0=-g["covariance"] * (x.auy / r.s - r.mean * (x.ay / r.s)))
    if "entropy_change" in g:
        u: Any = x.t - x.m
        p = jnp.exp(u - r.log_s)
        slope = core.times(p, 1 + u - r.mean)
        w = g["entropy_change"]
        add(target=-w * slope, c0=w * (slope - 2 * r.skew - r.square), c1=w * (p - r.square), cq=w, cr=2 * w)
    return c


def gradient(x: core.Sums, spec: core.Spec, cotangents: dict[str, jax.Array]) -> Gradient:
    """The rows of the gradient of ``sum_i cotangents_i . statistics_i``; rows without a possible token get 0."""
    r: Any = core.row(x)
    g = {name: jnp.where(r.possible, cotangents[name], 0) for name in spec.statistics}
    c = _polynomial(x, r, g)
    ct: core.Rows = None
    if "tsallis" in g:
        ct = -g["tsallis"] * spec.order / (spec.order - 1)
        c["c0"] = c["c0"] - ct * jnp.exp(core.safe_log(x.r) - spec.order * r.log_s)
    paired = {name: value for name, value in core.finalise(x, spec).items() if name in ("kl", "reverse_kl")}
    return Gradient(
        **c,
        m=x.m,
        log_s=r.log_s,
        mean=r.mean,
        cy=g.get("covariance"),
        ybar=None if x.ay is None else x.ay / r.s,
        ct=ct,
        top=g.get("max_logp"),
        top_index=x.top,
        m2=x.m2,
        log_s2=r.log_s2,
        **{name: g[name] for name in core.PAIRED if name in g},
        **{f"{name}_value": value for name, value in paired.items()},
        j=x.j,
        j2=x.j2,
        top_p=(x.top_p, g["top_p_entropy"]) if x.top_p is not None else None,
        top_k=(x.top_k, g["top_k_entropy"]) if x.top_k is not None else None,
    )


def dlogits(
    z: jax.Array,
    rows: Gradient,
    spec: core.Spec,
    *,
    columns: Any = None,
    targets: Any = None,
    y: Any = None,
    other: Any = None,
    lanes: core.Lanes = core.LANES,
) -> tuple[jax.Array, Any, Any]:
    """Gradients with respect to a tile of logits, to ``y`` and to ``other`` (None where the tile has none)."""

    def spread(value: jax.Array) -> jax.Array:
        return lanes.spread(value, z)

    u = z - spread(rows.m)
    log_p = u - spread(rows.log_s)
    p = jnp.exp(log_p)
    v: Any = None if rows.mean is None else u - spread(rows.mean)
    inner, dy = spread(rows.c0), None
    if rows.c1 is not None:
        slope = spread(rows.c1) if rows.c2 is None else spread(rows.c1) + spread(rows.c2) * v
        inner = inner + slope * v
    if rows.cq is not None:
        curve = spread(rows.cq) if rows.cr is None else spread(rows.cq) + spread(rows.cr) * v
        inner = inner + (p * curve if rows.cr is None else core.times(p, curve))
    if rows.cy is not None:
        inner = inner + spread(rows.cy) * (1 + v) * (y - spread(rows.ybar))
        dy = spread(rows.cy) * core.times(p, v)
    dz = p * inner if v is None else core.times(p, inner)
    if rows.ct is not None:
        dz = dz + spread(rows.ct) * jnp.exp(spec.order * log_p)
    for index, value in ((targets, rows.target), (rows.top_index, rows.top)):
        if value is not None and index is not None:
            dz = dz + jnp.where(columns == spread(index), spread(value), 0)
    if rows.top_p is not None or rows.top_k is not None:
        from rlx_kernels import most_probable

        dz = dz + most_probable.dlogits_of_kept(z, rows, columns)
    if rows.m2 is None or other is None:
        return dz, dy, None
    own, dother = _dlogits_of_pair(log_p, p, rows, other, spread)
    return dz + own, dy, dother


def _dlogits_of_pair(log_p, p, rows: Gradient, other, spread) -> tuple[jax.Array, jax.Array]:
    """Gradients of the divergences with respect to both tiles."""
    log_p2 = other - spread(rows.m2) - spread(rows.log_s2)
    p2 = jnp.exp(log_p2)
    dz, dother = jnp.zeros_like(p), jnp.zeros_like(p)
    if rows.kl is not None:
        g = spread(rows.kl)
        dz, dother = dz + g * (p - p2), dother + g * core.times(p2, log_p2 - log_p - spread(rows.kl_value))
    if rows.reverse_kl is not None:
        g = spread(rows.reverse_kl)
        dz, dother = dz + g * core.times(p, log_p - log_p2 - spread(rows.reverse_kl_value)), dother + g * (p2 - p)
    if rows.js is not None:
        g, middle = spread(rows.js) / 2, core.log_mean(log_p, log_p2)
        dz = dz + g * core.times(p, log_p - middle - spread(rows.j))
        dother = dother + g * core.times(p2, log_p2 - middle - spread(rows.j2))
    return dz, dother

"""Errors of a form against float64, on some of the rows: all of them would take longer than what is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from shapes import Case

ROWS = 24
COLUMNS = 512


def picked(count: int, most: int) -> np.ndarray:
    """Numbers below ``count``, spread evenly, the first and the last among them: a ragged edge is where errors are."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def wide(x: Any) -> np.ndarray:
    """A float64 copy of an array of NumPy, JAX or PyTorch."""
    x = x.float().cpu() if hasattr(x, "cpu") else x  # NumPy has no name for PyTorch's bfloat16
    return np.asarray(x).astype(np.float64)


def chosen(case: Case) -> Case:
    """The same inputs, with a loss that looks at the picked rows alone."""
    keep = np.zeros(case.shape.rows, np.float32)
    keep[picked(case.shape.rows, ROWS)] = 1
    return case._replace(a=case.a * keep, b=case.b * keep)


def expected(case: Case, *, entropy: bool = True) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Log-probability and entropy of the picked rows, and the gradients :func:`part` takes, in float64."""
    rows, cap = picked(case.shape.rows, ROWS), case.shape.softcap
    raw = wide(case.arrays[0][rows])
    if len(case.arrays) == 2:
        x, w = raw, case.arrays[1]
        blocks = range(0, w.shape[1], 8192)
        raw = np.concatenate([x @ wide(w[:, start : start + 8192]) for start in blocks], 1)
    c = raw if cap is None else cap * np.tanh(raw / cap)
    z = c - c.max(1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(1, keepdims=True))
    p, target, every = np.exp(logp), np.asarray(case.targets)[rows], np.arange(len(rows))
    h = -(p * logp).sum(1)
    a, b = (wide(weight)[rows][:, None] for weight in (case.a, case.b))
    dz = -a * p - (b * p * (logp + h[:, None]) if entropy else 0)
    dz[every, target] += a[:, 0]
    draw = dz if cap is None else dz * (1 - (c / cap) ** 2)
    if len(case.arrays) == 1:
        return logp[every, target], h, [draw]
    columns = picked(w.shape[1], COLUMNS)
    dx = sum(draw[:, start : start + 8192] @ wide(w[:, start : start + 8192]).T for start in blocks)
    return logp[every, target], h, [dx, x.T @ draw[:, columns]]


def part(case: Case, gradients: tuple[Any, ...]) -> list[np.ndarray]:
    """The picked rows of the first gradient and the picked columns of the second."""
    rows, columns = picked(case.shape.rows, ROWS), picked(case.shape.vocabulary, COLUMNS)
    return [wide(gradients[0][rows]), *(wide(gradient[:, columns]) for gradient in gradients[1:])]


def errors(
    case: Case, values: tuple[Any, ...], gradients: tuple[Any, ...] | None, *, entropy: bool
) -> dict[str, float]:
    """Largest absolute error of log-probability and entropy; relative L2 error of the worst gradient.

    ``values`` belong to ``case``, ``gradients`` to :func:`chosen` of it; ``entropy`` says whether the form has it.
    """
    logp, h, want = expected(case, entropy=entropy)
    rows = picked(case.shape.rows, ROWS)
    found = {"logp_error": float(np.abs(wide(values[0])[rows] - logp).max())}
    if entropy:
        found["entropy_error"] = float(np.abs(wide(values[1])[rows] - h).max())
    if gradients is not None:
        pairs = zip(part(case, gradients), want, strict=True)
        found["gradient_error"] = max(float(np.linalg.norm(g - w) / np.linalg.norm(w)) for g, w in pairs)
    return found

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


class Oracle:
    """Log-probability, entropy and gradients of the picked rows of a case, in float64."""

    def __init__(self, case: Case):
        self.case, self.chosen = case, chosen(case)
        self._rows, self._columns = picked(case.shape.rows, ROWS), picked(case.shape.vocabulary, COLUMNS)
        self._x, cap = wide(case.arrays[0][self._rows]), case.shape.softcap
        raw = self._x
        if len(case.arrays) == 2:
            raw = np.concatenate([self._x @ wide(case.arrays[1][:, block]) for block in self._blocks()], 1)
        c = raw if cap is None else cap * np.tanh(raw / cap)
        z = c - c.max(1, keepdims=True)
        self._logp = z - np.log(np.exp(z).sum(1, keepdims=True))
        self._slope = 1.0 if cap is None else 1 - (c / cap) ** 2
        self._hit = np.arange(len(self._rows)), np.asarray(case.targets)[self._rows]
        self.logp, self.entropy = self._logp[self._hit], -(np.exp(self._logp) * self._logp).sum(1)
        self._gradients: dict[bool, list[np.ndarray]] = {}

    def _blocks(self) -> list[slice]:
        return [slice(start, start + 8192) for start in range(0, self.case.shape.vocabulary, 8192)]

    def gradients(self, entropy: bool) -> list[np.ndarray]:
        """Those that :meth:`part` takes, of a loss with or without the entropy."""
        if entropy not in self._gradients:
            p = np.exp(self._logp)
            a, b = (wide(weight)[self._rows][:, None] for weight in (self.case.a, self.case.b))
            dz = -p * (a + b * (self._logp + self.entropy[:, None]) if entropy else a)
            dz[self._hit] += a[:, 0]
            dz = dz * self._slope
            self._gradients[entropy] = [dz] if len(self.case.arrays) == 1 else self._of_product(dz)
        return self._gradients[entropy]

    def _of_product(self, dz: np.ndarray) -> list[np.ndarray]:
        dx = sum(dz[:, block] @ wide(self.case.arrays[1][:, block]).T for block in self._blocks())
        return [dx, self._x.T @ dz[:, self._columns]]

    def part(self, gradients: tuple[Any, ...]) -> list[np.ndarray]:
        """The picked rows of the first gradient and the picked columns of the second."""
        first, *rest = gradients
        return [wide(first[self._rows]), *(wide(gradient[:, self._columns]) for gradient in rest)]

    def errors(self, values: tuple[Any, ...], gradients: tuple[Any, ...], *, entropy: bool) -> dict[str, float]:
        """Largest absolute error of log-probability and entropy; relative L2 error of the worst gradient.

        ``values`` belong to ``case``, None for what the form does not give, ``gradients`` to ``chosen``; ``entropy``
        says whether the form's loss has it.
        """
        wanted = {"logp_error": self.logp, "entropy_error": self.entropy}
        given = ((name, got, want) for (name, want), got in zip(wanted.items(), values, strict=True) if got is not None)
        found = {name: float(np.abs(wide(got)[self._rows] - want).max()) for name, got, want in given}
        pairs = list(zip(self.part(gradients), self.gradients(entropy), strict=True))
        worst = max(float(np.linalg.norm(got - want) / np.linalg.norm(want)) for got, want in pairs)
        return found | {"gradient_error": worst}

"""What the evaluation statistics ask of their inputs, and estimates over problems."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from rlx.errors import UserError


class Estimate(NamedTuple):
    """A statistic of every problem and its mean over problems.

    Attributes:
      per_problem: ``[...]`` the statistic of each problem.
      mean: over the problems.
      low: lower end of the interval of the mean; NaN with fewer than two problems.
      high: upper end.
    """

    per_problem: np.ndarray
    mean: float
    low: float
    high: float


def over_problems(values: Any, confidence: float = 0.95) -> Estimate:
    """The mean of values in [0, 1], one per problem, with its t-interval within [0, 1]; problems are the sample.

    Where all values agree a t-interval has no width, which says too much; Wilson's interval of a share of the problems
    stands in for it.

    >>> estimate = over_problems([0.5, 1.0, 0.0, 0.5])
    >>> print(f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]")
    0.50 [0.00, 1.00]
    >>> print(f"{over_problems([1.0] * 20).low:.2f}")
    0.84
    """
    from scipy.special import ndtri, stdtrit  # scipy would slow down the import of rlx

    values = np.asarray(values, np.float64)
    n, mean = values.size, float(values.mean())
    if n < 2:
        return Estimate(values, mean, math.nan, math.nan)
    spread = float(values.std(ddof=1))
    if spread > 0:
        centre, half = mean, float(stdtrit(n - 1, 0.5 + confidence / 2)) * spread / math.sqrt(n)
    else:
        z = float(ndtri(0.5 + confidence / 2)) ** 2
        centre = (mean + z / (2 * n)) / (1 + z / n)
        half = math.sqrt(z * mean * (1 - mean) / n + (z / (2 * n)) ** 2) / (1 + z / n)
    return Estimate(values, mean, max(0.0, centre - half), min(1.0, centre + half))


def samples(name: str, where: Any, **arrays: Any) -> tuple[np.ndarray, ...]:
    """NumPy arrays ``[..., n]`` of one shape, and their mask as the last of the tuple.

    Raises:
      UserError: the shapes differ, or an array holds a NaN that the mask does not hide.
    """
    found = {key: np.asarray(value) for key, value in arrays.items()}
    shapes = {key: value.shape for key, value in found.items()}
    mask = np.ones(next(iter(shapes.values())), bool) if where is None else np.asarray(where, bool)
    if any(shape != mask.shape or not shape for shape in shapes.values()):
        listed = ", ".join(f"{key} {shape}" for key, shape in {**shapes, "where": mask.shape}.items())
        raise UserError(f"{name} needs arrays of one shape [..., samples], not {listed}.")
    for key, value in found.items():
        if np.issubdtype(value.dtype, np.floating) and np.isnan(value[mask]).any():
            raise UserError(f"{name}: {key} holds NaN; leave such samples out with `where`.")
    return (*found.values(), mask)


def enough(name: str, counts: np.ndarray, k: int) -> None:
    """Raises a UserError unless every problem has at least k samples, and k is at least 1."""
    if k < 1:
        raise UserError(f"{name} needs k >= 1, not {k}.")
    if (counts < k).any():
        few = np.argwhere(np.atleast_1d(counts) < k)[0]
        problem = ", ".join(map(str, few))
        raise UserError(
            f"{name} at k = {k} needs {k} samples of every problem; problem {problem} has "
            f"{np.atleast_1d(counts)[tuple(few)]}. Lower k, or leave the problem out."
        )


def square(name: str, *, least: int = 1, **matrices: Any) -> None:
    """Raises a UserError unless all are square matrices of one size, of ``least`` rows or more."""
    shapes = {key: np.shape(value) for key, value in matrices.items()}
    sizes = set(shapes.values())
    shape = next(iter(sizes))
    if len(sizes) != 1 or len(shape) != 2 or shape[0] != shape[1] or shape[0] < least:
        listed = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise UserError(f"{name} needs square matrices of one size, at least {least} x {least}, not {listed}.")


def known_size(name: str, keyword: str, *ids: jax.Array) -> int:
    """The highest id + 1, where ids have values; a UserError under jit, where they have none yet."""
    try:
        return 1 + int(max(x.max(initial=-1) for x in ids))
    except jax.errors.ConcretizationTypeError as error:
        raise UserError(f"{name} must be told the number of {keyword} under jit: pass {keyword}=N.") from error

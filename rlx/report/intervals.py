"""Intervals of 95 % for means, paired differences and proportions, and the verdict that they give on a claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from rlx.errors import UserError

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]


class Interval(NamedTuple):
    """An estimate, the ends of its interval (NaN if `n` is too small for one), and
    the number of values (None: unknown)."""

    mean: float
    low: float
    high: float
    n: int | None = None

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    r"""The mean and its t-interval, :math:`\bar x \pm t_{n-1}\, s / \sqrt n`.

    Args:
      values: ``[n]`` independent values, one per seed; with n = 1, or if a value is not finite, the ends are NaN.
      confidence: the coverage.

    >>> interval = mean_interval([1.0, 2.0, 3.0])
    >>> f"{interval.mean:.1f} [{interval.low:.3f}, {interval.high:.3f}]"
    '2.0 [-0.484, 4.484]'
    """
    from scipy.special import stdtrit  # jax needs scipy anyway; scipy.stats would take a second to import

    array = _vector(values)
    with np.errstate(invalid="ignore"):  # infinities of both signs have the mean NaN
        n, mean = len(array), float(np.mean(array))
    if n == 1 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, 1)
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    half = quantile * float(np.std(array, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95) -> Interval:
    """The t-interval of the mean difference ours - theirs; values at one position share seed and data.

    >>> paired_interval([1.0, 2.0, 3.5], [0.0, 1.0, 2.5]).low
    1.0
    """
    return mean_interval(_differences(ours, theirs), confidence)


def paired_bootstrap(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The percentile bootstrap interval of the mean difference ours - theirs, pairs resampled together.

    Args:
      ours: ``[n]`` values.
      theirs: ``[n]`` values with the same seeds, or on the same examples.
      resamples: number of bootstrap samples.
      seed: of the resampling; the same seed gives the same interval.
      confidence: the coverage.
    """
    differences = _differences(ours, theirs)
    n = len(differences)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 2_000_000 // n)  # bounds the memory of the drawn indices
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        means[start : start + count] = differences[generator.integers(0, n, (count, n))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(np.mean(differences)), float(low), float(high), n)


def wilson_interval(successes: float, count: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion: unlike the normal one it stays within [0, 1], also at the ends.

    Args:
      successes: number of successes (half-integers from ties are fine).
      count: number of trials; with 0 trials everything is NaN.
      confidence: the coverage.

    >>> interval = wilson_interval(0, 10)
    >>> f"{interval.mean:.1f} [{interval.low:.3f}, {interval.high:.3f}]"
    '0.0 [0.000, 0.278]'

    References:
      Wilson, *Probable Inference, the Law of Succession, and Statistical Inference*, JASA 22, 1927.
    """
    from scipy.special import ndtri

    if not 0 <= successes <= count:
        raise UserError(f"wilson_interval needs 0 <= successes <= count, not {successes} of {count}.")
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    z, p = float(ndtri(0.5 + confidence / 2)), successes / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return Interval(p, max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p)), count)


def verdict(side: Literal["greater", "less"], difference: Interval) -> Verdict:
    """What the interval of a difference says about the claim that the difference is greater or less than 0.

    >>> verdict("greater", Interval(0.3, 0.1, 0.5, 8)), verdict("less", Interval(0.3, 0.1, 0.5, 8))
    ('reproduced', 'not reproduced')
    >>> verdict("greater", Interval(0.3, -0.1, 0.7, 8))
    'inconclusive'
    """
    if side not in ("greater", "less"):
        raise UserError(f"the side of a claim is 'greater' or 'less', not {side!r}.")
    low, high = (difference.low, difference.high) if side == "greater" else (-difference.high, -difference.low)
    if low > 0:
        return "reproduced"
    return "not reproduced" if high < 0 else "inconclusive"


def _vector(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise UserError(f"an interval needs a vector of at least one value, not an array of shape {array.shape}.")
    return array


def _differences(ours: Sequence[float], theirs: Sequence[float]) -> np.ndarray:
    left, right = _vector(ours), _vector(theirs)
    if left.shape != right.shape:
        raise UserError(f"paired values must have equal lengths, not {len(left)} and {len(right)}.")
    return left - right

"""The entropy-performance law: what a training run will reach, from the entropy it has left."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx import errors


class PerformanceLaw(NamedTuple):
    """``R = -a f(H) + b``, fitted by least squares.

    Attributes:
      a: performance gained for a unit of ``f(H)`` given up.
      b: offset.
      predicted: the fit at the entropies given.
      residual_sum_squares: of the performances around the fit.
      r_squared: share of their variance that the fit explains; 1 for performances that do not vary.
      ceiling: the performance at entropy 0, ``-a + b`` for ``f = exp``.
      feature: f.
    """

    a: float
    b: float
    predicted: np.ndarray
    residual_sum_squares: float
    r_squared: float
    ceiling: float
    feature: Callable[[np.ndarray], np.ndarray]

    def __call__(self, entropy: Any) -> np.ndarray:
        """The performance predicted at other entropies."""
        return -self.a * self.feature(np.asarray(entropy, float)) + self.b


def entropy_performance_law(
    entropy: Sequence[float] | np.ndarray,
    performance: Sequence[float] | np.ndarray,
    *,
    feature: Callable[[np.ndarray], np.ndarray] = np.exp,
) -> PerformanceLaw:
    r"""Fits :math:`R = -a\,e^{H} + b` to the entropies and performances of a run; linear in a and b.

    A law that holds makes entropy the currency of training: :math:`dR/dH = -a\,e^H`, and performance ends at
    :math:`-a + b` where the entropy is spent. Compare it with ``feature=np.positive``, the straight line
    :math:`R = -a H + b`, before believing in the exponential.

    Args:
      entropy: ``[N]`` policy entropies H in nats, of checkpoints or averages over steps.
      performance: ``[N]`` validation performances R.
      feature: f of :math:`R = -a f(H) + b`.

    Raises:
      UserError: fewer than two points, other shapes, entropies that do not differ, or numbers that are not finite.

    >>> law = entropy_performance_law([0.0, 1.0], [0.9, 0.9 - 0.1 * (np.e - 1)])
    >>> print(f"{law.a:.2f} {law.b:.2f} {law.ceiling:.2f}")
    0.10 1.00 0.90

    References:
      Cui et al., *The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models*, arXiv:2505.22617.
    """
    h, r = np.asarray(entropy, float), np.asarray(performance, float)
    if h.ndim != 1 or h.shape != r.shape or h.size < 2:
        raise errors.UserError(
            f"entropy {h.shape} and performance {r.shape} must be two lists of the same length, of 2 at least."
        )
    x = feature(h)
    if not (np.isfinite(x).all() and np.isfinite(r).all()):
        raise errors.UserError("entropy and performance must be finite: leave out the steps where they are not.")
    centred = x - x.mean()
    if not centred.any():
        raise errors.UserError(f"All entropies are {h[0]:g}: a law needs points of different entropy.")
    slope = centred @ (r - r.mean()) / (centred @ centred)
    b = r.mean() - slope * x.mean()
    predicted = slope * x + b
    residual, total = np.square(r - predicted).sum(), np.square(r - r.mean()).sum()
    explained = 1 - residual / total if total > 0 else 1.0
    ceiling = slope * feature(np.zeros(())) + b
    return PerformanceLaw(
        float(-slope), float(b), predicted, float(residual), float(explained), float(ceiling), feature
    )

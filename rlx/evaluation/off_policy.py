"""Off-policy estimators of the value of policies, judged by what the policies they recommend are worth."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rlx.errors import UserError


class TopK(NamedTuple):
    """What the k policies that an estimator ranks highest are worth.

    Attributes:
      sharpe_ratio: the gain of the best over the behaviour policy for the spread among them; NaN at k = 1.
      best: highest true value.
      worst: lowest.
      mean: of the true values.
      std: their standard deviation.
      violation_rate: share of them whose true value is below the safety threshold.
    """

    sharpe_ratio: float
    best: float
    worst: float
    mean: float
    std: float
    violation_rate: float


def sharpe_ratio_at_k(
    estimated_values: Any,
    true_values: Any,
    behaviour_value: float,
    *,
    k: int,
    ddof: int = 0,
    clip: tuple[float, float] = (-math.inf, math.inf),
    safety_threshold: float = -math.inf,
) -> TopK:
    r"""SharpeRatio@k: return over risk of deploying the k policies that an off-policy estimator ranks highest.

    .. math:: \frac{\text{best@}k - J(\pi_b)}{\text{std@}k}

    Args:
      estimated_values: ``[n]`` by the estimator; of equal ones the first come first.
      true_values: ``[n]`` of the same policies.
      behaviour_value: J of the policy that collected the data.
      k: how many are deployed, at most n.
      ddof: 0 as in the paper; the released code has 1.
      clip: ends of the ratio; the released code never goes below 0, and has an option for (0, 100).
      safety_threshold: a true value below it is a violation.

    Raises:
      UserError: the shapes differ, a value is NaN, or k is not in 1..n.

    >>> found = sharpe_ratio_at_k([3.0, 2.0, 1.0], [1.0, 2.0, 9.0], 0.5, k=2)
    >>> print(found.sharpe_ratio, found.best, found.mean)
    3.0 2.0 1.5

    References:
      Kiyohara et al., *Towards Assessing and Benchmarking Risk-Return Tradeoff of Off-Policy Evaluation*,
      arXiv:2311.18207.
    """
    estimated, true = np.asarray(estimated_values, np.float64), np.asarray(true_values, np.float64)
    if estimated.shape != true.shape or true.ndim != 1 or np.isnan(estimated).any() or np.isnan(true).any():
        raise UserError(
            f"sharpe_ratio_at_k needs two vectors of one length without NaN: {estimated.shape}, {true.shape}."
        )
    if not 1 <= k <= len(true):
        raise UserError(f"sharpe_ratio_at_k needs 1 <= k <= {len(true)} policies, not k = {k}.")
    chosen = true[np.argsort(-estimated, kind="stable")[:k]]
    spread = math.sqrt(((chosen - chosen.mean()) ** 2).sum() / (k - ddof)) if k > ddof else math.nan
    ratio = math.nan
    if k > 1:
        gain = chosen.max() - behaviour_value
        ratio = float(np.clip(gain / spread if spread else math.copysign(math.inf, gain) if gain else 0.0, *clip))
    unsafe = float(np.mean(chosen < safety_threshold))
    return TopK(ratio, float(chosen.max()), float(chosen.min()), float(chosen.mean()), spread, unsafe)

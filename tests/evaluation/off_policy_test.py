"""SharpeRatio@k at its edges."""

import math

import pytest

import rlx
from rlx import errors


def test_edges():
    estimated, true = [3.0, 2.0, 1.0], [1.0, 1.0, 0.0]
    alone = rlx.sharpe_ratio_at_k(estimated, true, 0.5, k=1, safety_threshold=0.5)
    assert math.isnan(alone.sharpe_ratio) and alone.std == 0 and alone.violation_rate == 0
    assert math.isnan(rlx.sharpe_ratio_at_k(estimated, true, 0.5, k=1, ddof=1).std)
    assert rlx.sharpe_ratio_at_k(estimated, true, 0.5, k=2).sharpe_ratio == math.inf
    assert rlx.sharpe_ratio_at_k(estimated, true, 1.5, k=2).sharpe_ratio == -math.inf
    assert rlx.sharpe_ratio_at_k(estimated, true, 1.0, k=2).sharpe_ratio == 0
    assert rlx.sharpe_ratio_at_k(estimated, true, 0.5, k=2, clip=(0, 100)).sharpe_ratio == 100
    assert rlx.sharpe_ratio_at_k(estimated, true, 9.0, k=3, clip=(0, math.inf)).sharpe_ratio == 0
    assert rlx.sharpe_ratio_at_k(estimated, true, 9.0, k=3, safety_threshold=0.5).violation_rate == 1 / 3


def test_errors():
    with pytest.raises(errors.UserError, match="1 <= k <= 2 policies, not k = 3"):
        rlx.sharpe_ratio_at_k([1.0, 2.0], [1.0, 2.0], 0.0, k=3)
    with pytest.raises(errors.UserError, match=r"without NaN: \(2,\), \(1,\)"):
        rlx.sharpe_ratio_at_k([1.0, 2.0], [1.0], 0.0, k=1)

"""Label models: ranges, and what rdpo's label is for."""

import jax
import numpy as np
import pytest

from rlx import errors
from rlx.preference import labels


@pytest.mark.parametrize("epsilon", [-0.1, 0.5, 1.0, float("nan")])
@pytest.mark.parametrize("model", [labels.smoothed, labels.debiased])
def test_a_flip_rate_out_of_range_is_refused(model, epsilon):
    with pytest.raises(errors.UserError, match=r"must be in \[0, 0.5\), got"):
        model(epsilon)


def test_a_traced_flip_rate_passes():
    np.testing.assert_allclose(jax.jit(labels.debiased)(0.25), 1.5)


def test_the_debiased_label_is_unbiased_over_flips():
    """(1 - eps) q + eps (1 - q) = 1: averaged over flipped labels, the clean label comes back."""
    for epsilon in (0.0, 0.1, 0.4):
        q = labels.debiased(epsilon)
        np.testing.assert_allclose((1 - epsilon) * q + epsilon * (1 - q), 1.0, rtol=1e-12)


def test_a_soft_label_is_a_constant():
    assert jax.grad(lambda p: labels.soft(p) * 3.0)(0.5) == 0

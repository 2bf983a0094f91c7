"""Tokens, targets and predictions line up."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import ops


def test_unshift_returns_to_token_alignment():
    """A value computed at position t for target t comes back to the place of its token."""
    tokens = jnp.arange(10).reshape(2, 5)
    of_targets = 10 * ops.shift(tokens, fill=0)
    np.testing.assert_array_equal(ops.unshift(of_targets, fill=-1)[:, 1:], 10 * tokens[:, 1:])
    np.testing.assert_array_equal(ops.unshift(of_targets, fill=-1)[:, 0], -1)


def test_predicting_equals_shift_of_everything():
    rng = np.random.default_rng(0)
    hidden, matrix = jnp.asarray(rng.normal(size=(2, 6, 4))), jnp.asarray(rng.normal(size=(4, 7)))
    tokens = jnp.asarray(rng.integers(0, 7, (2, 6)))
    start = 3
    whole = ops.linear_token_statistics(hidden, matrix, ops.shift(tokens, fill=0)).logp
    window = ops.linear_token_statistics(ops.predicting(hidden, start), matrix, tokens[:, start:]).logp
    np.testing.assert_allclose(ops.unshift(whole)[:, start:], window, rtol=1e-6)


@pytest.mark.parametrize("start", [0, 6])
def test_predicting_needs_a_token_before(start):
    with pytest.raises(ValueError, match="1..5"):
        ops.predicting(jnp.zeros((2, 6, 4)), start)

"""Down-sampling against exhaustive search, and which of equal ones are taken."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import downsampling


@pytest.mark.parametrize("seed", range(3))
def test_no_other_rows_have_a_larger_variance(seed):
    """With ties, with an offset, and with rows that are not there."""
    rng = np.random.default_rng(seed)
    advantages, where = rng.integers(-3, 4, 8).astype(np.float32) + 100, rng.random(8) < 0.8
    real = np.flatnonzero(where)
    for size in (1, 3, len(real)):
        rows = np.asarray(downsampling.max_variance_rows(jnp.asarray(advantages), size, where=where))
        assert rows.sum() == size and not (rows & ~where).any()
        best = max(np.var(advantages[list(chosen)]) for chosen in itertools.combinations(real, size))
        np.testing.assert_allclose(np.var(advantages[rows]), best, rtol=1e-6)


def test_of_equal_advantages_the_first_are_taken():
    rows = downsampling.max_variance_rows(jnp.array([1.0, 1.0, 0.0, 0.0]), 2)
    np.testing.assert_array_equal(rows, [True, False, True, False])
    np.testing.assert_array_equal(downsampling.max_variance_rows(jnp.ones(4), 2), [True, True, False, False])
    np.testing.assert_array_equal(downsampling.max_variance_rows(jnp.arange(3.0)), [True, False, False])  # half


def test_more_than_there_are_is_all():
    where = jnp.array([True, True, False])
    np.testing.assert_array_equal(downsampling.max_variance_rows(jnp.arange(3.0), 9, where=where), where)
    assert not downsampling.max_variance_rows(jnp.arange(3.0), 2, where=jnp.zeros(3, bool)).any()


def test_a_group_of_equal_rewards_goes():
    """Also where rounding gives equal rewards a standard deviation, and where only padding differs."""
    rewards = jnp.array([[0.1, 0.1, 0.1], [0.1, 0.2, 0.1], [1.0, 0.0, 0.0]])
    where = jnp.array([[True, True, True], [True, True, False], [True, False, False]])
    keep = lambda **options: downsampling.dapo_dynamic_sampling(rewards, where=where, **options)[..., 0]  # noqa: E731
    np.testing.assert_array_equal(keep(), [[False] * 3, [True, True, False], [True, False, False]])
    np.testing.assert_array_equal(keep(singleton=False), [[False] * 3, [True, True, False], [False] * 3])


def test_errors():
    with pytest.raises(errors.UserError, match="num_samples .* at least 1, got 0"):
        downsampling.max_variance_rows(jnp.zeros(3), 0)
    with pytest.raises(errors.UserError, match=r"must be in \(0, 1\], got 0"):
        downsampling.d3s(jnp.zeros((2, 3)), jnp.zeros((2, 1)), token_fraction=0.0)
    with pytest.raises(errors.UserError, match="advantages has shape"):
        downsampling.d3s(jnp.zeros((2, 3)), jnp.zeros((3, 1)))

"""Sums and statistics over segments against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import advantages, segments

IDS = np.array([[5, -3, 5, 8, -3, 5], [0, 0, 1, 0, 1, 7]])
VALUES = np.random.default_rng(0).normal(size=IDS.shape).astype(np.float32)
WHERE = np.array([[True, True, True, True, False, True], [True, True, False, True, True, True]])


@pytest.mark.parametrize("scale", [True, False])
def test_normalize_is_that_of_every_segment(scale: bool) -> None:
    poisoned = jnp.where(WHERE, VALUES, jnp.nan)
    normalize = jax.jit(segments.normalize, static_argnames="scale")
    found = np.asarray(normalize(poisoned, jnp.asarray(IDS), scale=scale, where=jnp.asarray(WHERE)))
    for row in range(2):
        for name in np.unique(IDS[row]):
            members = (IDS[row] == name) & WHERE[row]
            group = VALUES[row][members]
            alone = (
                advantages.group_normalize(jnp.asarray(group), scale=scale) if len(group) > 1 else np.zeros_like(group)
            )
            np.testing.assert_allclose(found[row][members], alone, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found[~WHERE], 0)


def test_equal_values_stay_equal_however_small_epsilon_is() -> None:
    """The mean of three times 9.025 is off by a rounding, which 1e-9 must not magnify."""
    values = jnp.full(3, 9.025, jnp.float32)
    np.testing.assert_array_equal(segments.normalize(values, jnp.zeros(3, int), scale=True, epsilon=1e-9), 0)


def test_ids_out_of_range_have_no_segment() -> None:
    ids = jnp.array([-1, 0, 2, 99])
    np.testing.assert_array_equal(segments.total(jnp.array([1.0, 2.0, 4.0, 8.0]), ids, 3), [2, 0, 4])
    np.testing.assert_array_equal(segments.spread(jnp.array([5.0, 6.0, 7.0]), ids), [0, 5, 7, 0])


def test_shapes_must_agree() -> None:
    with pytest.raises(errors.UserError, match=r"ids has shape \(2,\), but values has shape \(3,\)"):
        segments.normalize(jnp.zeros(3), jnp.zeros(2, int))

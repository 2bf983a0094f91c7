"""AOT: units that hold their partners constant have value and gradient of the sorted batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors, method
from rlx.preference import transport

RNG = np.random.default_rng(0)
POLICY, REFERENCE = (jnp.asarray(-RNG.exponential(9.0, (7, 2)), jnp.float32) for _ in range(2))


def sorted_loss(policy, reference, paired, where=None, beta=0.1):
    """The paper's definition: both sides sorted, gradients through the sort."""
    upper, lower = jnp.moveaxis(transport.sides(policy, reference, paired=paired), -1, 0)
    if where is not None:
        upper, lower = upper[where], lower[where]
    return jax.nn.softplus(-beta * (jnp.sort(upper) - jnp.sort(lower))).mean()


@pytest.mark.parametrize("paired", [True, False])
def test_value_and_gradient_are_those_of_the_sorted_batch(paired):
    found = jax.value_and_grad(lambda p: transport.aot(p, REFERENCE, paired=paired))(POLICY)
    expected = jax.value_and_grad(lambda p: sorted_loss(p, REFERENCE, paired))(POLICY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


@pytest.mark.parametrize("paired", [True, False])
def test_masked_pairs_have_no_rank(paired):
    kept = np.array([True, False, True, True, False, True, True])
    where = jnp.stack([jnp.ones(7, bool), jnp.asarray(kept)], -1)
    policy = jnp.where(where, POLICY, jnp.nan)
    value, slope = jax.value_and_grad(lambda p: transport.aot(p, REFERENCE, paired=paired, where=where))(policy)
    np.testing.assert_allclose(value, sorted_loss(POLICY, REFERENCE, paired, kept), rtol=1e-6)
    assert np.isfinite(slope).all() and (slope[~kept] == 0).all()


def test_ties_are_broken_like_a_stable_ascending_sort():
    policy, reference = (
        jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]),
        jnp.array([[0.0, 0.0], [5.0, 0.0], [-9.0, 0.0]]),
    )
    found = jax.grad(lambda p: transport.aot(p, reference))(policy)
    expected = jax.grad(lambda p: sorted_loss(p, reference, True))(policy)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_partners_are_prepared_for_the_whole_batch():
    built = rlx.build("aot_unpaired")
    batch = {"policy_logps": POLICY, "reference_logps": REFERENCE}
    constants, _ = built.prepare(batch, {}, {}, None)
    assert constants.units["partners"].shape == (7, 2) and built.splittable
    np.testing.assert_allclose(method.loss(built, batch), sorted_loss(POLICY, REFERENCE, False), rtol=1e-6)


def test_wrong_arguments_are_named():
    with pytest.raises(errors.UserError, match=r"partners has shape \(7,\), but policy_logps has shape \(7, 2\)"):
        transport.aot(POLICY, REFERENCE, partners=jnp.zeros(7))
    with pytest.raises(errors.UserError, match="epsilon is the rate of flipped labels"):
        transport.aot(POLICY, REFERENCE, epsilon=0.7)

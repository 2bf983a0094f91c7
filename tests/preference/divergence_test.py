"""f-DPO, EXO and differential information: options, errors and the ends of the range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import divergence

POLICY, REFERENCE = jnp.array([[-3.0, -4.0], [-2.0, -9.0]]), jnp.array([[-3.5, -3.0], [-2.0, -8.0]])


def test_fdpo_takes_a_divergence_of_your_own():
    """f'(u) = u - 1 of the chi-square, by a function of the log-ratio."""
    found = divergence.fdpo(POLICY, REFERENCE, divergence=lambda d, alpha: jnp.expm1(d), reduce=None)
    u = np.exp(np.array(POLICY - REFERENCE))
    np.testing.assert_allclose(found, np.logaddexp(0, -0.1 * (u[:, 0] - u[:, 1])), rtol=1e-6)
    with pytest.raises(errors.UserError, match="Unknown divergence 'forward'. Did you mean 'forward_kl'"):
        divergence.fdpo(POLICY, REFERENCE, divergence="forward")


@pytest.mark.parametrize("name", divergence.DIVERGENCES)
def test_a_masked_nan_spoils_no_divergence(name):
    where = jnp.array([[True, True], [True, False]])
    policy = POLICY.at[1, 1].set(jnp.nan)
    value, slope = jax.value_and_grad(lambda p: divergence.fdpo(p, REFERENCE, divergence=name, where=where))(policy)
    assert np.isfinite(value) and np.isfinite(slope).all() and (slope[1] == 0).all()


@pytest.mark.parametrize(("epsilon", "message"), [(0.0, "epsilon must be above 0, got 0.0"), (0.5, r"in \[0, 0.5\)")])
def test_exo_needs_a_label_that_is_neither_certain_nor_empty(epsilon, message):
    with pytest.raises(errors.UserError, match=message):
        divergence.exo_pair(POLICY, REFERENCE, epsilon=epsilon)


def test_dpo_on_the_optimal_rejected_distribution_has_the_policy_as_its_optimum(float64):
    """Chosen from the reference, rejected from pi_l: over all pairs, DPO's gradient vanishes at the policy."""

    def check():
        rng = np.random.default_rng(0)
        policy, reference = (jax.nn.log_softmax(jnp.asarray(rng.normal(size=5))) for _ in range(2))
        rejected = divergence.differential_information(policy, reference, beta=0.3).optimal_rejected

        def loss(logits):
            d = 0.3 * (jax.nn.log_softmax(logits) - reference)
            pairs = jax.nn.softplus(d[None, :] - d[:, None])
            return (jnp.exp(reference)[:, None] * rejected[None, :] * pairs).sum()

        np.testing.assert_allclose(jax.grad(loss)(policy), np.zeros(5), atol=1e-12)

    float64(check)


def test_outcomes_that_are_masked_have_no_share():
    where = jnp.array([True, False, True])
    logs = jnp.array([-1.0, jnp.nan, -1.0])
    found = divergence.differential_information(logs, logs, where=where)
    np.testing.assert_allclose(found.did, [0.5, 0.0, 0.5])
    np.testing.assert_allclose(found.entropy, np.log(2), rtol=1e-6)


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_capped_on_both_sides_is_no_preference(beta, float64):
    """In float64 the cap is the end of the range, and beta and 1/alpha come on top of it."""
    far, near = [[-1e4, -1e4]], [[-1.0, -1e4], [-1e4, -1.0]]

    def run(d):
        arrays = jnp.asarray(d), jnp.zeros(np.shape(d))
        return np.asarray(divergence.fdpo(*arrays, divergence="alpha", alpha=0.5, beta=beta, reduce=None))

    np.testing.assert_allclose(float64(run, far), np.log(2))
    assert float64(run, near)[0] == 0 and np.isfinite(float64(run, near)).all()

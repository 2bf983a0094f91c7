"""The oracle against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np

from rlx_kernels import core, reference

HALF, QUARTER = np.log(1 / 2), np.log(1 / 4)


def test_statistics_of_a_known_distribution():
    """p = (1/2, 1/4, 1/4), logits are log p + 1."""
    z = jnp.array([HALF, QUARTER, QUARTER]) + 1
    out = reference.statistics(z, jnp.array(1), core.STATISTICS)
    entropy = 1.5 * np.log(2)
    want = {
        "logp": QUARTER, "entropy": entropy, "lse": 1.0, "mean": 1 - entropy, "max_logp": HALF,
        "variance": np.log(2) ** 2 / 4, "renyi2": -np.log(3 / 8),
    }  # fmt: skip
    for name, value in want.items():
        np.testing.assert_allclose(out[name], value, atol=1e-6, err_msg=name)


def test_kl_is_the_expectation_under_other():
    """other = (1/2, 1/2, 0), logits = (1/2, 1/4, 1/4): KL = 1/2 log 2."""
    z = jnp.array([HALF, QUARTER, QUARTER])
    other = jnp.array([HALF, HALF, -jnp.inf])
    np.testing.assert_allclose(reference.kl(z, other), 0.5 * np.log(2), atol=1e-6)

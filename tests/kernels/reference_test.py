"""The oracle against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np

from rlx_kernels import core, reference

HALF, QUARTER = np.log(1 / 2), np.log(1 / 4)


def test_statistics_of_a_known_distribution():
    """p = (1/2, 1/4, 1/4), logits are log p + 1; the other policy is (1/2, 1/2, 0), the numbers (1, 0, 0)."""
    z, other = jnp.array([HALF, QUARTER, QUARTER]) + 1, jnp.array([HALF, HALF, -jnp.inf])
    spec = core.Spec(core.STATISTICS, top_p=0.6, top_k=2, order=3.0)
    out = reference.statistics(z, jnp.array(1), spec, jnp.array([1.0, 0, 0]), other)
    log2, third = np.log(2), 1 / 3
    entropy = 1.5 * log2
    middle = np.array([1 / 2, 3 / 8, 1 / 8])
    want = {
        "logp": QUARTER, "entropy": entropy, "lse": 1.0, "mean": 1 - entropy, "max_logp": HALF,
        "variance": log2**2 / 4, "renyi2": -np.log(3 / 8), "covariance": log2 / 4,
        # v = (log2 / 2, -log2 / 2, -log2 / 2): sum p^2 v - p_t v_t
        "entropy_change": log2 / 8 - log2 / 16 + log2 / 8, "tsallis": (1 - 1 / 8 - 2 / 64) / 2,
        "top_p_entropy": np.log(3) - 2 * third * log2, "top_k_entropy": np.log(3) - 2 * third * log2,
        "kl": log2 / 2, "reverse_kl": np.inf,
        "js": (0.25 * np.log(0.25 / middle[1]) + 0.25 * np.log(0.25 / middle[2])
               + 0.5 * np.log(0.5 / middle[1])) / 2,
    }  # fmt: skip
    assert set(want) == set(core.STATISTICS)
    for name, value in want.items():
        np.testing.assert_allclose(out[name], value, atol=1e-6, err_msg=name)

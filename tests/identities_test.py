"""Identities between methods: the algebra in one line each, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from tests.identities import advantages, first, second
from tests.identities.arrays import ADVANTAGES, LENGTHS, LOGITS, LOGPROBS, POLICY, REFERENCE, TOKENS, margin

IDENTITIES = first.IDENTITIES | second.IDENTITIES | advantages.IDENTITIES
GRADIENTS = {
    "ppo at ratio one has the policy gradient": lambda: (
        jax.grad(lambda x: rlx.ppo_clip_loss(x, LOGPROBS, ADVANTAGES))(jnp.asarray(LOGPROBS)),
        np.broadcast_to(-ADVANTAGES / LOGPROBS.size, LOGPROBS.shape),
    ),
    "power_dl at its fixed point has no preference gradient": lambda: (
        jax.grad(lambda x: rlx.power_dl(x, LENGTHS, fixed_point(), eta=0.0))(jnp.asarray(POLICY)),
        np.zeros_like(POLICY),
    ),
    "dpo has the gradient of its equation": lambda: (
        jax.grad(lambda x: rlx.dpo(x, REFERENCE, beta=0.1))(jnp.asarray(POLICY)),
        -0.1 / (1 + np.exp(0.1 * margin()))[:, None] / 6 * np.array([1.0, -1.0]),
    ),
    "rdpo never pushes a margin down": lambda: (
        np.sign(jax.grad(lambda x: rlx.rdpo(x, REFERENCE, epsilon=0.3))(jnp.asarray(POLICY))),
        np.tile([-1.0, 1.0], (6, 1)),
    ),
    "cdpo stops where the policy believes the label as much as it should": lambda: (
        jax.grad(lambda x: rlx.cdpo(x, np.zeros(2), beta=1.0, epsilon=0.1))(jnp.array([np.log(9.0), 0.0])),
        np.zeros(2),
    ),
    "tdpo1 does not move a policy at the reference along the kl": lambda: (
        jax.grad(lambda x: rlx.tdpo(x, LOGITS, TOKENS, alpha=1.0))(jnp.asarray(LOGITS)),
        jax.grad(lambda x: rlx.tdpo(x, LOGITS, TOKENS, alpha=0.0))(jnp.asarray(LOGITS)),
    ),
}


def fixed_point():
    weights = 1 / LENGTHS
    z = 2.0 * ((weights * POLICY)[:, 0] - (weights * POLICY)[:, 1] + weights[:, 0] - weights[:, 1])
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("statement", [*IDENTITIES, *GRADIENTS])
def test_identity(statement, float64):
    left, right = float64((IDENTITIES | GRADIENTS)[statement])
    np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=1e-9, atol=1e-12)

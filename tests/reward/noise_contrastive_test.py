"""Noise-contrastive alignment of lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.reward import noise_contrastive

RNG = np.random.default_rng(0)
POLICY, REFERENCE = (jnp.asarray(-RNG.exponential(9, (5, 4)), jnp.float32) for _ in range(2))
SCORES = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)


def test_it_stops_where_each_reward_is_the_log_odds_of_target_against_noise():
    target = np.asarray(jax.nn.softmax(SCORES))
    rewards = np.log(4 * target)
    slope = jax.grad(lambda p: noise_contrastive.nca(p, jnp.zeros_like(p), SCORES, beta=1.0))(jnp.asarray(rewards))
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_infonca_does_not_see_a_shift_and_nca_does():
    shifted = POLICY + 3.0
    for loss, same in ((noise_contrastive.infonca, True), (noise_contrastive.nca, False)):
        found, moved = (loss(policy, REFERENCE, SCORES, beta=0.1) for policy in (POLICY, shifted))
        assert np.isclose(found, moved, rtol=1e-5) == same


def test_padding_of_ragged_lists_is_no_noise():
    where = jnp.arange(4) < 3
    found = noise_contrastive.nca(POLICY, REFERENCE, SCORES, beta=0.1, where=jnp.broadcast_to(where, (5, 4)))
    np.testing.assert_allclose(
        found, noise_contrastive.nca(POLICY[:, :3], REFERENCE[:, :3], SCORES[:, :3], beta=0.1), rtol=1e-5
    )


@pytest.mark.parametrize("loss", [noise_contrastive.nca, noise_contrastive.infonca])
def test_wrong_settings_are_named(loss):
    with pytest.raises(errors.UserError, match="must be above 0, got 0"):
        loss(POLICY, REFERENCE, SCORES, alpha=0)
    with pytest.raises(errors.UserError, match=r"scores has shape \(5, 3\)"):
        loss(POLICY, REFERENCE, SCORES[:, :3])

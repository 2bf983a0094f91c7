"""A value head's loss beside a policy loss: a plain sum over the same tokens, with constants of the rollout."""

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from rlx import method
from rlx.policy.value import value_clip_loss
from rlx.train.critic import CriticSettings, with_critic


def make_batch():
    def draw(i: int, low: float, high: float) -> jax.Array:
        return jax.random.uniform(jax.random.PRNGKey(i), (2, 3, 4), minval=low, maxval=high)

    where = jnp.arange(4) < jnp.array([[[4], [2], [3]], [[1], [4], [2]]])
    names = ("token_rewards", "values", "old_values", "returns")
    batch = {name: draw(i, -1, 1) for i, name in enumerate(names)}
    batch |= {"logprobs": draw(7, -2, 0), "old_logprobs": draw(8, -2, 0), "where": where}
    return batch | {"finished": jnp.ones((2, 3)), "advantages": draw(9, -1, 1)}


def test_the_loss_is_the_sum_of_both():
    batch, plain = make_batch(), rlx.build("ppo_clip_loss")
    joined = with_critic(plain, CriticSettings(coefficient=0.3, clip=0.1))
    value = value_clip_loss(batch["values"], batch["old_values"], batch["returns"], clip=0.1, where=batch["where"])
    np.testing.assert_allclose(
        method.loss(joined, batch, {}, {}), method.loss(plain, batch, {}, {}) + 0.3 * value, rtol=1e-6
    )
    assert set(joined.needs) == {*plain.needs, "values", "old_values", "returns"}


def test_advantages_are_of_the_values_at_the_rollout():
    batch = make_batch()
    joined = with_critic(rlx.build("ppo"), CriticSettings())
    moved = batch | {"values": batch["values"] + 1}
    before, after = (joined.prepare(b, {}, {}, None)[0].units["advantages"] for b in (batch, moved))
    np.testing.assert_array_equal(before, after)
    assert "values" not in joined.prepare_needs and "old_values" in joined.prepare_needs

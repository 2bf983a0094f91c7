"""COPO: prompts against each other, the blend, and the loss at its two ends; errors."""

import numpy as np
import pytest

import rlx
from rlx import errors

ANSWERS = np.array([[1, 1, 2, 1], [4, 5, 6, 7], [3, 3, 3, 3]])
REWARDS = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], np.float32)


def test_global_advantages_compare_prompts() -> None:
    actual = rlx.copo_global_advantage(REWARDS, ANSWERS, entropy_coefficient=False)
    np.testing.assert_allclose(actual[:, 0], rlx.grpo_advantage(REWARDS.mean(-1)), rtol=1e-5)
    assert (np.ptp(actual, axis=1) == 0).all()
    alone = rlx.copo_global_advantage(REWARDS[:1], ANSWERS[:1])
    np.testing.assert_array_equal(alone, np.zeros((1, 4, 1)))


@pytest.mark.parametrize(
    ("blend", "expected"),
    [("forced", [1, 1, 0]), ("global", [0, 0, 0]), ("soft", [0.3, 0.7, 0.2]), ("soft_forced", [0.3, 0.7, 0])],
)
def test_weight_of_the_local_advantage(blend: str, expected: list[float]) -> None:
    weight = rlx.copo_weight(REWARDS, ANSWERS, blend=blend)[:, 0, 0]
    np.testing.assert_allclose(weight, expected, atol=0.25)
    assert (np.asarray(weight)[np.array(expected) == 0] == 0).all()


def test_weights_by_reward() -> None:
    np.testing.assert_array_equal(rlx.copo_weight(REWARDS, ANSWERS, blend="zero")[..., 0], REWARDS)
    soft = rlx.copo_weight(REWARDS, ANSWERS, blend="soft")[..., 0]
    np.testing.assert_array_equal(rlx.copo_weight(REWARDS, ANSWERS, blend="soft_zero")[..., 0], soft * REWARDS)


def test_copo_is_ppo_on_either_side() -> None:
    rng = np.random.default_rng(0)
    logprobs, old = -rng.random((2, 3, 4, 2)).astype(np.float32)
    everywhere = rlx.copo_global_advantage(REWARDS, ANSWERS)
    found = rlx.copo(logprobs, old, REWARDS, ANSWERS, blend="global", dual_clip=None)
    np.testing.assert_allclose(found, rlx.ppo_clip_loss(logprobs, old, everywhere), rtol=1e-5)
    mixed = [x[:2] for x in (logprobs, old, REWARDS, ANSWERS)]
    found = rlx.copo(*mixed, blend="forced", dual_clip=None)
    np.testing.assert_allclose(found, rlx.ppo_clip_loss(*mixed[:2], rlx.grpo_advantage(mixed[2])), rtol=1e-5)
    with pytest.raises(errors.UserError, match="Did you mean 'forced'"):
        rlx.copo(logprobs, old, REWARDS, ANSWERS, blend="force")
    with pytest.raises(errors.UserError, match="answers has shape"):
        rlx.copo_global_advantage(REWARDS, ANSWERS[:2])

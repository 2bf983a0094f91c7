"""Agreement of answers, and what it weighs: by hand, special cases."""

import jax.numpy as jnp
import numpy as np

import rlx
from rlx.policy import answers

ANSWERS = np.array([[1, 1, 2, 1], [4, 5, 6, 7], [3, 3, 3, 3]])
REWARDS = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], np.float32)


def test_entropy_of_answers() -> None:
    shannon = answers.answer_entropy(ANSWERS)[:, 0]
    np.testing.assert_allclose(shannon, [np.log(4) - 0.75 * np.log(3), np.log(4), 0], rtol=1e-5, atol=1e-7)
    clusters = answers.answer_entropy(ANSWERS, per_cluster=True)[:, 0]
    np.testing.assert_allclose(clusters, [np.log(4) - np.log(3) / 2, np.log(4), 0], rtol=1e-5, atol=1e-7)
    where = np.array([[True, True, False, True], [True, False, False, False], [False] * 4])
    np.testing.assert_array_equal(answers.answer_entropy(ANSWERS, where=where), np.zeros((3, 1)))
    np.testing.assert_array_equal(answers.normalised_entropy(ANSWERS, jnp.asarray(where)), np.zeros((3, 1)))


def test_agreement_leaves_seed_grpo_dr_grpo() -> None:
    np.testing.assert_allclose(rlx.seed_grpo(REWARDS, np.ones_like(ANSWERS)), rlx.dr_grpo_advantage(REWARDS))
    np.testing.assert_allclose(rlx.seed_grpo(REWARDS, ANSWERS)[1], np.zeros((4, 1)), atol=1e-6)
    weighed = rlx.seed_grpo(REWARDS, ANSWERS, alpha=2.0, modulation=answers.exponential)[1]
    np.testing.assert_allclose(weighed, rlx.dr_grpo_advantage(REWARDS)[1] * np.exp(-2), rtol=1e-5)

"""Token credit of a DPO policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import credit

LOGPROBS, REFERENCE = jnp.array([[-1.0, -2.0, -0.5], [-3.0, -1.0, -4.0]]), jnp.full((2, 3), -1.5)


def test_masked_tokens_have_no_credit_and_no_gradient():
    where = jnp.array([[True, True, False], [True, False, False]])
    logprobs = jnp.where(where, LOGPROBS, jnp.nan)
    found = credit.dpo_token_credit(logprobs, REFERENCE, beta=2.0, where=where)
    np.testing.assert_array_equal(found.token_rewards, [[1.0, -1.0, 0.0], [-3.0, 0.0, 0.0]])
    np.testing.assert_array_equal(found.reward_to_go, [[0.0, -1.0, 0.0], [-3.0, 0.0, 0.0]])
    slope = jax.grad(lambda x: credit.dpo_token_credit(x, REFERENCE, where=where).sequence_reward.sum())(logprobs)
    np.testing.assert_allclose(slope, 0.1 * where)


def test_wrong_shapes_are_named():
    with pytest.raises(errors.UserError, match=r"reference_logprobs has shape \(2,\), but logprobs has shape \(2, 3\)"):
        credit.dpo_token_credit(LOGPROBS, jnp.zeros(2))

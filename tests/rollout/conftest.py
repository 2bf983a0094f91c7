"""What tests of rollouts share."""

import jax
import numpy as np
import pytest

from rlx import ops


@pytest.fixture
def assert_numbers_of_one_forward_pass():
    """``(model, params, prompt, valid, rollout)``: log-probabilities and entropy are those of the plain model."""

    def check(model, params, prompt, valid, found):
        _, group, size = found.tokens.shape
        tokens = np.concatenate([np.repeat(prompt, group, 0), found.tokens.reshape(-1, size)], 1)
        whole = np.concatenate([np.repeat(valid, group, 0), found.where.reshape(-1, size)], 1)
        hidden, unembedding = jax.jit(model.apply)(params, tokens, whole)
        start = prompt.shape[1]
        want = ops.linear_token_statistics(
            ops.predicting(hidden, start),
            unembedding,
            tokens[:, start:],
            where=whole[:, start:],
            statistics=("logp", "entropy"),
        )
        np.testing.assert_allclose(found.logprobs.reshape(-1, size), want.logp, atol=1e-5)
        np.testing.assert_allclose(found.entropy.reshape(-1, size), want.entropy, atol=1e-5)

    return check

"""Draws by shares: every prompt gets its number of responses, and their numbers are those of the model."""

import jax
import numpy as np

from rlx import models, ops
from rlx.rollout import Sampling
from rlx.rollout.shares import places, sample_shares, scatter

MODEL = models.build({"vocab_size": 23, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "init_std": 0.5})
PARAMS = MODEL.init(0)
PROMPT = np.array([[0, 5, 6], [7, 8, 9], [1, 2, 3]], np.int32)
VALID = PROMPT > 0
SAMPLING = Sampling(4, eos_id=4)


def test_responses_stand_first_and_what_is_absent_is_empty():
    shares = np.array([2, 1, 3])
    found = sample_shares(MODEL, PARAMS, PROMPT, VALID, shares, most=4, sampling=SAMPLING, key=jax.random.PRNGKey(3))
    present = places(shares, 4)
    assert found.tokens.shape == (3, 4, 4)
    np.testing.assert_array_equal(found.where.any(-1), present)
    np.testing.assert_array_equal(found.where.sum(-1), found.lengths)
    for array in found:
        assert not np.asarray(array)[~present].any()
    rows = np.concatenate([np.repeat(PROMPT, shares, 0), found.tokens[present]], 1)
    valid = np.concatenate([np.repeat(VALID, shares, 0), found.where[present]], 1)
    hidden, unembedding = jax.jit(MODEL.apply)(PARAMS, rows, valid)
    want = ops.linear_token_statistics(ops.predicting(hidden, 3), unembedding, rows[:, 3:], where=valid[:, 3:])
    np.testing.assert_allclose(found.logprobs[present], want.logp, atol=1e-5)


def test_rows_go_to_their_places_in_order():
    present = places(np.array([1, 3]), 3)
    np.testing.assert_array_equal(scatter(np.array([4.0, 5.0, 6.0, 7.0]), present), [[4, 0, 0], [5, 6, 7]])

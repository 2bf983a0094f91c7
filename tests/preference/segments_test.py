"""CPL and step-level DPO: ties, biases, dropped pairs, alignment of responses, smoothing, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import links, segments

RNG = np.random.default_rng(0)
LOGPROBS = jnp.asarray(-RNG.exponential(1.0, (3, 2, 4)), jnp.float32)
TOKENS = jnp.array([[[5, 6, 7, 8], [5, 6, 9, 8]], [[1, 2, 3, 4], [9, 2, 3, 4]]])


def test_cpl_with_a_bias_by_hand():
    s, q = 0.1 * np.asarray(LOGPROBS).sum(-1), np.array([1.0, 0.5, 0.0])
    expected = q * np.logaddexp(0, 0.5 * s[:, 1] - s[:, 0]) + (1 - q) * np.logaddexp(0, 0.5 * s[:, 0] - s[:, 1])
    np.testing.assert_allclose(segments.cpl(LOGPROBS, jnp.asarray(q), bias=0.5, reduce=None), expected, rtol=1e-5)


def test_a_tie_is_symmetric():
    q = jnp.full(3, 0.5)
    np.testing.assert_allclose(
        segments.cpl(LOGPROBS[:, ::-1], q, bias=0.5), segments.cpl(LOGPROBS, q, bias=0.5), rtol=1e-6
    )


def test_cloning_is_a_mean_over_tokens_of_the_batch():
    where = np.arange(4) < np.array([[[4], [1]], [[2], [3]], [[0], [0]]])
    found = segments.cpl(LOGPROBS, bc_coeff=2.0, where=where) - segments.cpl(LOGPROBS, where=where)
    np.testing.assert_allclose(found, -2 * np.asarray(LOGPROBS)[where].mean(), rtol=1e-5)


def test_dense_by_hand_with_a_tie():
    """Of the two with score 1 the later one, candidate 2, counts as the better."""
    logprobs = jnp.array([[[-1.0], [-3.0], [-2.0], [-9.0]]])
    where = jnp.array([[True, True, True, False]])[..., None]
    score = jnp.array([[1.0, 0.0, 1.0, jnp.nan]])
    pairs = [(0, 1), (2, 1), (2, 0)]
    s = np.array([-1.0, -3.0, -2.0])
    expected = np.mean([np.logaddexp(0, 0.5 * s[j] - s[i]) for i, j in pairs])
    found = segments.cpl_dense(logprobs, score, alpha=1.0, bias=0.5, where=where)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_pairs_whose_loss_rounds_to_zero_can_be_dropped():
    arrays = jnp.array([[-1.0], [-2.0], [-900.0]]), jnp.array([2.0, 1.0, 0.0])
    whole, dropped = (segments.cpl_dense(*arrays, alpha=1.0, drop_zeros=drop) for drop in (False, True))
    np.testing.assert_allclose([3 * whole, dropped], np.full(2, np.log1p(np.exp(-1.0))), rtol=1e-6)


def test_responses_are_compared_from_their_own_first_tokens():
    later = segments.after_divergence(TOKENS)
    np.testing.assert_array_equal(later[:, 0], [[False, False, True, True], [True] * 4])
    where = jnp.array([[[True, True, True, False], [False, True, True, True]]])
    shifted = jnp.array([[[5, 6, 7, 0], [0, 5, 6, 9]]])
    np.testing.assert_array_equal(
        segments.after_divergence(shifted, where), [[[False, False, True, False], [False, False, False, True]]]
    )


def test_a_response_that_only_goes_on_differs_where_it_does():
    where = jnp.array([[True, True, False], [True, True, True]])
    found = segments.after_divergence(jnp.array([[1, 2, 3], [1, 2, 3]]), where)
    np.testing.assert_array_equal(found, [[False] * 3, [False, False, True]])


def test_equal_responses_have_margin_zero():
    logprobs, tokens = LOGPROBS[:1], TOKENS[:1, [0, 0]]
    np.testing.assert_allclose(segments.mcts_dpo(logprobs, LOGPROBS[1:2], tokens), np.log(2), rtol=1e-6)


def test_conservative_and_penalised_by_hand():
    d = np.asarray(LOGPROBS[:2] - LOGPROBS[1:])
    d = np.array([d[0, :, 2:].sum(-1) / 2**1.5, d[1].sum(-1) / 4**1.5])
    z, epsilon = 0.5 * (d[:, 0] - d[:, 1]), np.array([0.25, 0.5])
    expected = (1 - epsilon) * np.logaddexp(0, -z) + epsilon * np.logaddexp(0, z)
    arrays = LOGPROBS[:2], LOGPROBS[1:], TOKENS, jnp.array([[3.0, 1.0], [0.0, 7.0]])
    found = segments.mcts_dpo(*arrays, beta=0.5, length_penalty=1.5, reduce=None)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_ipo_of_steps():
    d = np.asarray(LOGPROBS[:2] - LOGPROBS[1:])
    m = np.array([d[0, 0, 2:].sum() - d[0, 1, 2:].sum(), d[1, 0].sum() - d[1, 1].sum()])
    arrays = LOGPROBS[:2], LOGPROBS[1:], TOKENS
    found = segments.mcts_dpo(*arrays, beta=0.2, link=links.squared(0.5), reduce=None)
    np.testing.assert_allclose(found, 0.2**2 * (m - 1 / (2 * 0.2)) ** 2, rtol=1e-4)


def test_smoothing_stays_within_a_half():
    values = jnp.array([[1.0, 1e4], [1e4, -1e4], [0.0, -1.0]])
    np.testing.assert_allclose(segments.visit_smoothing(values), [0.5, 0.0, 0.0])
    np.testing.assert_array_equal(jax.grad(lambda v: segments.visit_smoothing(v).sum())(values), 0)


def test_wrong_inputs_are_named():
    for loss in (segments.cpl, lambda x, **k: segments.cpl_dense(x, x[..., 0], **k)):
        with pytest.raises(errors.UserError, match=r"bias weighs the segment that lost and must be in \(0, 1\], got 0"):
            loss(LOGPROBS, bias=0)
    with pytest.raises(errors.UserError, match="logprobs has shape .*: cpl wants"):
        segments.cpl(LOGPROBS[:, :1])
    with pytest.raises(errors.UserError, match="tokens has shape .* they must agree"):
        segments.mcts_dpo(LOGPROBS, LOGPROBS, TOKENS)

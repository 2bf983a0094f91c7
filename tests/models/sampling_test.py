"""Samples: the cache changes nothing, log-probabilities are those of a forward pass, frequencies are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import models, ops
from rlx.models.sampling import draw, sample

CONFIG = {"vocab_size": 150, "hidden_size": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "qkv_bias": True}
PROMPT = np.array([[0, 0, 5, 6], [7, 8, 9, 10]], np.int32)
VALID = np.array([[False, False, True, True], [True] * 4])


def make(**options):
    model = models.build(CONFIG | options)
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype(p.dtype), model.init(0))


@pytest.mark.parametrize("scan", [False, True])
def test_log_probabilities_equal_a_forward_pass(scan):
    model, params = make(scan_layers=scan)
    tokens, logprobs = sample(model, params, PROMPT, VALID, max_new_tokens=5, key=jax.random.key(0))
    whole = np.concatenate([PROMPT, tokens], 1)
    hidden, unembedding = jax.jit(model.apply)(params, whole, np.pad(VALID, ((0, 0), (0, 5)), constant_values=True))
    want = ops.linear_token_statistics(ops.predicting(hidden, 4), unembedding, tokens).logp
    np.testing.assert_allclose(logprobs, want, atol=1e-5)


def test_cache_and_whole_sequence_draw_the_same():
    model, params = make()
    keywords = {"max_new_tokens": 6, "temperature": 0.7, "key": jax.random.key(1)}
    cached = sample(model, params, PROMPT, VALID, **keywords)
    whole = sample(model._replace(decode=None), params, PROMPT, VALID, **keywords)
    np.testing.assert_array_equal(cached[0], whole[0])
    np.testing.assert_allclose(cached[1], whole[1], atol=1e-5)


def test_greedy_takes_the_most_probable_and_eos_ends():
    model, params = make()
    keywords = {"temperature": 0.0, "key": jax.random.key(0)}
    free, _ = sample(model, params, PROMPT, VALID, max_new_tokens=6, **keywords)
    hidden, unembedding = jax.jit(model.apply)(params, PROMPT, VALID)
    np.testing.assert_array_equal(free[:, 0], jnp.argmax(hidden[:, -1] @ unembedding, -1))
    eos = int(free[0, 2])
    first = int(np.argmax(free[0] == eos))
    tokens, logprobs = sample(model, params, PROMPT, VALID, max_new_tokens=6, eos_id=eos, **keywords)
    np.testing.assert_array_equal(tokens[0, :first], free[0, :first])
    assert (tokens[0, first:] == eos).all() and logprobs[0, first] < 0
    assert not np.asarray(logprobs[0, first + 1 :]).any()


def test_draw_has_the_frequencies_of_the_distribution():
    """A regular grid of uniform numbers gives each token its probability, to one part of the grid."""
    rng = np.random.default_rng(0)
    logits = np.where(rng.random(300) < 0.2, -np.inf, rng.normal(size=300)).astype(np.float32)
    grid = (np.arange(5000) + 0.5) / 5000
    counts = np.bincount(draw(jnp.tile(logits, (5000, 1)), jnp.asarray(grid)), minlength=300)
    np.testing.assert_allclose(counts / 5000, jax.nn.softmax(logits), atol=2 / 5000)


def test_the_largest_uniform_number_is_no_impossible_token():
    logits = jnp.full((1, 300), -jnp.inf).at[0, 7].set(0.0).at[0, 200].set(0.0)
    last = np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_array_equal(draw(logits, jnp.array([last])), [200])
    np.testing.assert_array_equal(draw(logits, jnp.array([0.0])), [7])

"""Sampling: the recorded log-probabilities are those of a forward pass, with a cache and without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import models, ops
from rlx.errors import UserError
from rlx.models.sampling import pick, sample

PROMPT = np.array([[0, 0, 5, 2], [3, 4, 1, 2]], np.int32)
VALID = np.array([[False, False, True, True], [True] * 4])


@pytest.fixture(scope="module")
def model():
    return models.build({"name": "transformer", "vocab_size": 9, "hidden_size": 8, "num_layers": 2, "num_heads": 2})


@pytest.mark.parametrize("cached", [True, False])
def test_logprobs_are_those_of_a_forward_pass(model, cached):
    model = model if cached else model._replace(decode=None)
    params = jax.tree.map(lambda x: 20 * x, model.init(0))  # far from uniform
    tokens, logprobs = sample(model, params, PROMPT, VALID, max_new_tokens=6, key=jax.random.PRNGKey(1))
    whole = jnp.concatenate([PROMPT, tokens], 1)
    hidden, unembedding = model.apply(params, whole, jnp.concatenate([VALID, jnp.ones_like(tokens, bool)], 1))
    expected = ops.linear_token_statistics(hidden[:, 3:-1], unembedding, tokens, statistics=("logp",)).logp
    np.testing.assert_allclose(logprobs, expected, atol=1e-5)


def test_cache_and_whole_sequences_choose_the_same_tokens(model):
    params = model.init(0)
    options = {"max_new_tokens": 6, "key": jax.random.PRNGKey(1)}
    with_cache, _ = sample(model, params, PROMPT, VALID, **options)
    without, _ = sample(model._replace(decode=None), params, PROMPT, VALID, **options)
    np.testing.assert_array_equal(with_cache, without)


def test_a_row_ends_with_its_end_token(model):
    params = model.init(0)
    tokens, logprobs = sample(
        model,
        params,
        np.repeat(PROMPT, 8, 0),
        np.repeat(VALID, 8, 0),
        max_new_tokens=12,
        eos_id=4,
        key=jax.random.PRNGKey(0),
    )
    tokens, logprobs = np.asarray(tokens), np.asarray(logprobs)
    after = np.cumsum(tokens == 4, axis=1) > (tokens == 4)
    assert after.any() and (tokens[after] == 4).all() and (logprobs[after] == 0).all() and (logprobs[~after] < 0).all()


def test_temperature_zero_is_greedy(model):
    params = model.init(0)
    runs = [
        sample(model, params, PROMPT, VALID, max_new_tokens=5, temperature=0, key=jax.random.PRNGKey(seed))[0]
        for seed in (0, 1)
    ]
    np.testing.assert_array_equal(*runs)
    hidden, unembedding = model.apply(params, jnp.asarray(PROMPT), jnp.asarray(VALID))
    np.testing.assert_array_equal(runs[0][:, 0], (hidden[:, -1] @ unembedding).argmax(-1))


def test_inversion_has_the_right_frequencies_and_never_picks_the_impossible():
    probabilities = np.array([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    uniforms = (np.arange(1000) + 0.5) / 1000
    logits = jnp.log(jnp.asarray(probabilities))[None].repeat(1000, 0)
    counts = np.bincount(pick(logits, jnp.asarray(uniforms)), minlength=6)
    np.testing.assert_allclose(counts / 1000, probabilities, atol=2e-3)
    assert pick(logits[:1], jnp.array([1.0]))[0] == 4  # rounding past the end stays inside the support


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"max_new_tokens": 0}])
def test_mistakes_are_named(model, options):
    with pytest.raises(UserError, match=next(iter(options))):
        sample(model, {}, PROMPT, VALID, **({"max_new_tokens": 1, "key": jax.random.PRNGKey(0)} | options))

"""The Markov language: its truths, the pairs made from it, and policies sampled and measured against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import markov_language as language
from rlx.models import Model

SIZES = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 8}


@pytest.fixture(scope="module")
def model() -> Model:
    return language.build_model(SIZES)


def policy(model: Model, seed: int):
    """Weights large enough for distributions far from uniform."""
    return jax.tree.map(lambda x: 20 * jnp.asarray(x) if x.ndim > 1 else jnp.asarray(x), model.init(seed))


def next_token(model: Model, params, texts: np.ndarray) -> np.ndarray:
    """``[N, R, 33]`` probabilities, the whole sequence in one go."""
    inputs = np.pad(texts[:, :-1], ((0, 0), (1, 0)), constant_values=language.START)
    hidden, unembedding = model.apply(params, jnp.asarray(inputs))
    return np.asarray(jax.nn.softmax(hidden @ unembedding, -1), np.float64)


def test_chain_is_sampled_with_its_probabilities() -> None:
    transitions = language.chain(0, sharpness=1.0)
    np.testing.assert_allclose(transitions.sum(-1), 1)
    stratified = (np.arange(3200) + 0.5) / 3200
    first = language.sample_chain(transitions, stratified[:, None])[:, 0]
    counts = np.bincount(first, minlength=language.TOKENS)
    np.testing.assert_allclose(counts, 3200 * transitions[language.START], atol=1)


def test_reward_counts_sentiment() -> None:
    texts = np.array([[[0, 1, 2, 3], [8, 9, 10, 16]], [[31, 16, 0, 8], [7, 7, 20, 20]]])
    np.testing.assert_allclose(language.true_reward(texts), [[1.0, -0.75], [0.0, 0.5]])


def test_preferred_text_comes_first_and_flips_nest() -> None:
    texts = np.random.default_rng(0).integers(0, language.TOKENS, (500, 2, 6))
    pairs = language.preference_pairs(texts, 1e4, 0)
    reward = language.true_reward(pairs)
    assert (reward[:, 0] >= reward[:, 1]).all()
    low, high = (language.flip(pairs, rate, 1) for rate in (0.2, 0.4))
    flipped = [(noisy != pairs).any((1, 2)) for noisy in (low, high)]
    assert (flipped[0] <= flipped[1]).all() and 0.12 < flipped[0].mean() < 0.28 < 0.32 < flipped[1].mean() < 0.48
    np.testing.assert_array_equal(language.flip(pairs, 0.0, 1), pairs)
    np.testing.assert_array_equal(language.flip(reward, 0.4, 1), language.true_reward(high))


def test_batches_cover_an_epoch_before_the_next() -> None:
    order = list(language.batches(10, 5, 4, seed=0))
    assert len(order) == 4 and sorted(np.concatenate(order[:2])) == list(range(10))
    np.testing.assert_array_equal(order, list(language.batches(10, 5, 4, seed=0)))
    assert not np.array_equal(order, list(language.batches(10, 5, 4, seed=1)))


def test_samples_follow_the_policy(model: Model) -> None:
    """Stratified numbers at the first two positions: frequencies must equal the model's probabilities."""
    params, side = policy(model, 0), 64
    grid = (np.arange(side) + 0.5) / side
    uniforms = np.stack([np.repeat(grid, side), np.tile(grid, side)], 1).astype(np.float32)
    texts = np.asarray(language.sample(model, params, uniforms))
    probabilities = next_token(model, params, texts)[..., : language.TOKENS]
    probabilities /= probabilities.sum(-1, keepdims=True)
    for token in range(language.TOKENS):
        rows = texts[:, 0] == token
        np.testing.assert_allclose(rows.mean(), probabilities[0, 0, token], atol=1.1 / side)
        if rows.any():
            counts = np.bincount(texts[rows, 1], minlength=language.TOKENS) / rows.sum()
            np.testing.assert_allclose(counts, probabilities[rows][0, 1], atol=1.1 / side)


def test_kl_is_the_sum_over_positions(model: Model) -> None:
    params, reference = policy(model, 0), policy(model, 1)
    texts = np.random.default_rng(0).integers(0, language.TOKENS, (3, 5)).astype(np.int32)
    p, q = (next_token(model, weights, texts) for weights in (params, reference))
    expected = (p * np.log(p / q)).sum((-1, -2))
    np.testing.assert_allclose(language.kl_to(model, params, reference, texts), expected, rtol=1e-4)
    np.testing.assert_allclose(language.kl_to(model, params, params, texts), 0, atol=1e-5)

"""What is cut off from a distribution, against a sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.rollout.truncation import statistics, truncate


def weights(size, ties=False):
    rng = np.random.default_rng(size)
    w = np.exp(3 * rng.normal(size=(6, size))).astype(np.float32)
    if ties:
        w = np.exp2(np.round(np.log2(w)))  # sums are exact, so that equal weights are equal in both orders
    w[0, : size // 2] = 0
    return w / w.max(-1, keepdims=True)


def by_sorting(w, keep):
    order = np.argsort(-w, -1, kind="stable")
    ranked = np.take_along_axis(w.astype(np.float64), order, -1)
    kept = np.zeros_like(w)
    np.put_along_axis(kept, order, np.where(keep(ranked), ranked, 0).astype(np.float32), -1)
    return kept


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [5, 300])
def test_equal_to_a_sort(size, ties):
    w, cut = weights(size, ties), jax.jit(truncate)
    for k in (1, 3, size):
        want = by_sorting(w, lambda ranked, k=k: np.arange(size) < k)
        np.testing.assert_array_equal(cut(w, top_k=k), want)
    for p in (0.001, 0.5, 0.9):
        want = by_sorting(w, lambda r, p=p: np.cumsum(r, -1) - r < p * r.sum(-1, keepdims=True))
        np.testing.assert_array_equal(cut(w, top_p=p), want)


def test_uniform_weights_are_cut_by_their_index():
    np.testing.assert_array_equal(truncate(jnp.ones((1, 8)), top_p=0.5), [[1] * 4 + [0] * 4])
    np.testing.assert_array_equal(truncate(jnp.ones((1, 8)), top_k=3), [[1] * 3 + [0] * 5])


def test_top_k_counts_no_impossible_token():
    np.testing.assert_array_equal(truncate(jnp.array([[0.0, 1.0, 0.0, 0.5]]), top_k=3), [[0, 1, 0, 0.5]])


def test_statistics_are_those_of_a_softmax():
    z = np.where(np.arange(200) % 7 == 0, -np.inf, np.random.default_rng(0).normal(size=(3, 200)))
    found = statistics(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(found.top[:, 0] + np.log(found.total), np.log(np.exp(z).sum(-1)), rtol=1e-5)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    np.testing.assert_allclose(found.entropy, -(p * np.log(np.where(p > 0, p, 1))).sum(-1), rtol=1e-5)

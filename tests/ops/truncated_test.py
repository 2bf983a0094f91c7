"""Nuclei and the top k: which tokens are kept at a boundary, ties, and a selection without gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors, ops

LOGITS = jnp.log(jnp.array([0.125, 0.5, 0.25, 0.125]))


@pytest.mark.parametrize(
    ("rule", "top_p", "kept"),
    [
        ("crossing", 0.5, [1]),
        ("crossing", 0.51, [1, 2]),
        ("crossing", 0.8, [0, 1, 2]),
        ("crossing", 1.0, [0, 1, 2, 3]),
        ("strict", 0.5, []),
        ("strict", 0.51, [1]),
        ("strict", 0.8, [1, 2]),
        ("at_least_one", 0.4, [1]),
        ("at_least_one", 0.5, [1]),
        ("at_least_one", 0.8, [1, 2]),
    ],
)
def test_a_nucleus_by_hand(rule: str, top_p: float, kept: list[int]) -> None:
    keep = ops.nucleus(LOGITS, top_p=top_p, rule=rule)
    assert np.flatnonzero(keep).tolist() == kept
    p = np.exp(LOGITS)[kept]
    q = p / p.sum()
    entropy, gradient = jax.value_and_grad(lambda z: ops.top_p_entropy(z, top_p=top_p, rule=rule))(LOGITS)
    np.testing.assert_allclose(entropy, -(q * np.log(q)).sum(), rtol=1e-6, atol=1e-7)
    outside = np.setdiff1d(range(4), kept)
    assert not np.asarray(gradient)[outside].any()


def test_ties_are_kept_by_index() -> None:
    np.testing.assert_array_equal(ops.nucleus(jnp.zeros(4), top_p=0.4), [True, True, False, False])
    np.testing.assert_allclose(ops.top_k_entropy(jnp.zeros(4), top_k=3), np.log(3), rtol=1e-6)


def test_all_tokens_give_the_whole_entropy() -> None:
    whole = ops.token_entropy(LOGITS)
    for found in (
        ops.top_p_entropy(LOGITS, top_p=1.0),
        ops.top_k_entropy(LOGITS, top_k=9),
        ops.top_k_entropy(LOGITS, top_k=9, tail=True),
    ):
        np.testing.assert_allclose(found, whole, rtol=1e-6)


def test_tokens_whose_probability_underflows_are_ranked_by_their_logits() -> None:
    np.testing.assert_allclose(ops.top_k_entropy(jnp.array([0.0, -300.0, -200.0]), top_k=2), 0, atol=1e-30)
    found = jax.grad(lambda z: ops.top_k_entropy(z, top_k=2))(jnp.array([0.0, -3.0, -2.0]))
    assert found[1] == 0 and found[2] != 0


def test_errors_say_what_is_allowed() -> None:
    with pytest.raises(errors.UserError, match=r"top_p is a probability mass and must be in \(0, 1\], got 0"):
        ops.top_p_entropy(LOGITS, top_p=0.0)
    with pytest.raises(errors.UserError, match="Unknown rule 'crosing' of a nucleus. Did you mean 'crossing'"):
        ops.nucleus(LOGITS, rule="crosing")
    with pytest.raises(errors.UserError, match="top_k is a number of tokens and must be at least 1, got 0"):
        ops.top_k_entropy(LOGITS, top_k=0)

"""Rejection sampling: against a plain loop, its limits, that it ends, and that its samples are the optimal policy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors


def plain(rewards, uniforms, beta, num_samples):
    """The paper's listing, with indices in the place of texts."""
    stream, taken, left, used = iter(uniforms), [], list(range(len(rewards))), 0
    while len(taken) < num_samples:
        best, accepted = max(rewards[i] for i in left), []
        for i in left:
            used += 1
            if next(stream) < np.exp((rewards[i] - best) / beta):
                taken.append(i)
                accepted.append(i)
                if len(taken) == num_samples:
                    break
        left = [i for i in left if i not in accepted]
    return taken, used


def test_against_a_plain_loop():
    rng = np.random.default_rng(0)
    for beta in (0.1, 0.5, 2.0):
        rewards, uniforms = rng.normal(size=9).astype(np.float32), rng.random(45).astype(np.float32)
        found = rlx.rso_rejection_sampling(rewards, uniforms, beta=beta, num_samples=5)
        taken, used = plain(rewards, uniforms, beta, 5)
        assert (found.indices.tolist(), int(found.uniforms_consumed), bool(found.converged)) == (taken, used, True)


def test_limits_of_beta():
    rewards, key = jnp.array([1.0, 3.0, 2.0, 0.0]), jax.random.key(0)
    best = rlx.rso_rejection_sampling(rewards, beta=0.0, num_samples=3, key=key)
    first = rlx.rso_rejection_sampling(rewards, beta=jnp.inf, num_samples=3, key=key)
    assert best.indices.tolist() == [1, 2, 0] and first.indices.tolist() == [0, 1, 2]


def test_it_ends_whatever_it_is_given():
    """All rewards -inf or NaN, fewer candidates than samples, and too few random numbers."""
    rewards = jnp.array([[-jnp.inf] * 3, [jnp.nan] * 3, [1.0, jnp.nan, 2.0], [1.0, 2.0, 3.0]])
    where = jnp.ones((4, 3), bool).at[3, 1:].set(False)
    found = rlx.rso_rejection_sampling(rewards, num_samples=3, key=jax.random.key(0), where=where)
    assert found.converged.all()
    np.testing.assert_array_equal((found.indices >= 0).sum(-1), [3, 0, 2, 1])
    short = rlx.rso_rejection_sampling(rewards[3], jnp.full(2, 0.999), beta=0.1, num_samples=2)
    assert not short.converged and short.indices.tolist() == [-1, -1] and short.uniforms_consumed == 2


def test_the_first_sample_follows_the_optimal_policy():
    """With rewards of two values, a single candidate is taken with the odds that exp(r / beta) gives."""
    rewards = jnp.broadcast_to(jnp.array([0.0, 1.0]), (20000, 2))
    found = rlx.rso_rejection_sampling(rewards, beta=1.0, num_samples=1, key=jax.random.key(0))
    first = np.asarray(found.indices[:, 0] == 0).mean()
    # in the order of the list: the first candidate is visited first, and taken with probability e^-1
    np.testing.assert_allclose(first, np.exp(-1.0), atol=0.015)


def test_wrong_inputs_are_named():
    with pytest.raises(errors.UserError, match=r"num_samples must be in 1..3, the number of candidates, got 4"):
        rlx.rso_rejection_sampling(jnp.zeros(3), num_samples=4, key=jax.random.key(0))
    with pytest.raises(errors.UserError, match="needs key=jax.random.key"):
        rlx.rso_rejection_sampling(jnp.zeros(3), num_samples=1)

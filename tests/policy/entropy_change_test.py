"""What a step does to the entropy of a table of softmax policies: measured, against the covariance prediction.

Contexts have K sampled actions of one token each. A step moves the logits by the gradient of a method's loss; to first
order the entropy changes by minus the covariance of log-probability and change of logit, and, seen from the sampled
tokens, by ``-alpha (S_y - E S)`` summed over them, with alpha what the method says the push on the token is.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import aggregate, ops
from rlx.policy import entropy_weights, select

CONTEXTS, SAMPLES, ACTIONS = 5, 8, 6
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(CONTEXTS, ACTIONS))
OLD_LOGITS = LOGITS + 0.3 * RNG.normal(size=LOGITS.shape)
REWARDS = RNG.normal(size=(CONTEXTS, SAMPLES))
TARGETS = RNG.integers(0, ACTIONS, (CONTEXTS, SAMPLES))
COV = {"ratio": 0.2, "lower": 0.0, "upper": 50.0, "clip_low": 0.2, "clip_high": 0.2}


def entropy(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return -(p * np.log(p)).sum(-1)


def tokens_of(logits):
    """Log-probabilities of the sampled tokens ``[C, K, 1]``."""
    rows = jnp.broadcast_to(jnp.asarray(logits)[:, None], (CONTEXTS, SAMPLES, ACTIONS))
    return ops.token_statistics(rows, jnp.asarray(TARGETS)).logp[..., None]


def arrays(logits):
    rows = jnp.broadcast_to(ops.token_entropy(jnp.asarray(logits))[:, None, None], (CONTEXTS, SAMPLES, 1))
    return tokens_of(logits), tokens_of(OLD_LOGITS), rlx.grpo_advantage(jnp.asarray(REWARDS)), rows


def unclipped(logprobs, old, advantages):
    """Where PPO's clip at 0.2 leaves the gradient, and the ratio."""
    ratio = jnp.exp(logprobs - old)
    return ratio * jnp.where(advantages > 0, ratio <= 1.2, ratio >= 0.8)


def reinforce(x, old, a, h):
    return rlx.reinforce_loss(x, a, reduce=aggregate.total), a


def grpo(x, old, a, h):
    return rlx.ppo_clip_loss(x, old, a, reduce=aggregate.total), a * unclipped(x, old, a)


def clip_cov(x, old, a, h):
    keep = select.clip_cov_keep(x, old, a, **COV, key=jax.random.key(0))
    loss = rlx.clip_cov(x, old, a, **COV, key=jax.random.key(0), reduce=aggregate.total)
    return loss, keep * a * unclipped(x, old, a)


def kl_cov(x, old, a, h):
    selected = select.kl_cov_select(x, a, ratio=0.2)
    loss = rlx.kl_cov(x, old, a, ratio=0.2, coefficient=0.5, reduce=aggregate.total)
    return loss, a * jnp.exp(x - old) - 0.5 * selected * jnp.sign(x - old)


def steer(x, old, a, h):
    weights = entropy_weights.steer_weights(x, old, a, h)
    loss = rlx.steer(x, old, a, h, clip_high=0.2, reduce=aggregate.total)
    return loss, weights * a * unclipped(x, old, a)


METHODS = {f.__name__: f for f in (reinforce, grpo, clip_cov, kl_cov, steer)}


@functools.cache
def predictions(name: str) -> tuple[np.ndarray, ...]:
    """The step by autodiff, and the slope of every context's entropy along it: over the vocabulary, from the tokens."""

    def both(logits):
        step = -jax.grad(lambda z: METHODS[name](*arrays(z))[0])(logits)
        push = METHODS[name](*arrays(logits))[1][..., 0]
        rows = jnp.broadcast_to(logits[:, None], (CONTEXTS, SAMPLES, ACTIONS))
        sampled = -(push * ops.entropy_discriminator(rows, jnp.asarray(TARGETS)).centred).sum(-1)
        return step, -ops.vocabulary_covariance(logits, step), sampled

    with jax.enable_x64(True):
        return tuple(map(np.asarray, jax.jit(both)(LOGITS)))


@pytest.mark.parametrize("name", METHODS)
def test_the_measured_change_is_the_predicted_one_as_the_step_vanishes(name: str) -> None:
    step, over_vocabulary, from_tokens = predictions(name)
    np.testing.assert_allclose(from_tokens, over_vocabulary, rtol=1e-9)
    errors = []
    for size in (1e-2, 1e-3, 1e-4):
        measured = (entropy(LOGITS + size * step) - entropy(LOGITS)) / size
        errors.append(np.abs(measured / over_vocabulary - 1).max())
    assert errors[-1] < 0.01, errors
    np.testing.assert_allclose(errors[1] / errors[2], 10, rtol=0.2)  # what is left is of second order


def test_methods_differ_from_each_other() -> None:
    """The five predictions are those of five methods: clips, selections and weights bite on this sample."""
    found = [predictions(name)[1] for name in METHODS]
    assert all(np.abs(x - y).max() > 1e-3 for i, x in enumerate(found) for y in found[:i])


def test_the_mean_of_steers_estimate_is_the_covariance_with_each_logits_own_push() -> None:
    """Omega_y is the term of y in Cov(log pi, dz) with ``dz_a = A_a r_a (1 - p_a)``: what a moves its own logit by."""
    p, old = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (LOGITS, OLD_LOGITS))
    values = RNG.normal(size=LOGITS.shape)
    with jax.enable_x64(True):
        rows = np.broadcast_to(entropy(LOGITS)[:, None], LOGITS.shape)
        omega = np.asarray(entropy_weights.entropy_change(*map(jnp.asarray, (np.log(p), np.log(old), values, rows))))
    step = values * p / old * (1 - p)
    measured = (entropy(LOGITS + 1e-6 * step) - entropy(LOGITS)) / 1e-6
    np.testing.assert_allclose(measured, -(p * omega).sum(-1), rtol=1e-3)

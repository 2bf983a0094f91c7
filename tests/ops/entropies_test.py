"""Entropies of logits: limits of the order, impossible and saturated tokens, masks, further gradients of the files."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors, ops
from rlx.policy import exact

VECTORS = Path(__file__).parents[1] / "vectors"
LOGITS = np.array([[0.0, 1.0, -2.0, 3.0], [2.0, 2.0, -1.0, 0.0]], np.float32)
TARGETS = jnp.array([0, 1])

ENTROPIES = {
    "shannon": ops.token_entropy,
    **{f"renyi_{alpha}": functools.partial(ops.renyi_entropy, alpha=alpha) for alpha in (0.0, 0.5, 1.1, 3.0, np.inf)},
    **{f"tsallis_{q}": functools.partial(ops.tsallis_entropy, q=q) for q in (0.5, 1.1, 2.0)},
    "tempered": lambda z, **options: ops.tempered_entropy(z, TARGETS, **options).entropy,
    "cross": lambda z, **options: ops.tempered_entropy(z, TARGETS, **options).cross_entropy,
    "top_p": functools.partial(ops.top_p_entropy, top_p=0.9),
    "strict": functools.partial(ops.top_p_entropy, top_p=0.9, rule="strict"),
    "top_k": functools.partial(ops.top_k_entropy, top_k=2),
    "bucket": functools.partial(ops.top_k_entropy, top_k=2, tail=True),
}


@functools.cache
def derivative(name: str):
    """Compiled: (logits, where) -> entropies and the gradient of their sum."""

    def total(logits, where):
        found = ENTROPIES[name](logits, where=where)
        return found.sum(), found

    def both(logits, where):
        gradient, found = jax.grad(total, has_aux=True)(logits, where)
        return found, gradient

    return jax.jit(both)


REAL = np.array([True, True])


@pytest.mark.parametrize("name", ENTROPIES)
def test_an_offset_changes_nothing(name: str) -> None:
    value, gradient = derivative(name)(LOGITS, REAL)
    shifted, shifted_gradient = derivative(name)(LOGITS + np.float32(4096), REAL)
    np.testing.assert_allclose(shifted, value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(shifted_gradient, gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-5)


@pytest.mark.parametrize("name", ENTROPIES)
def test_impossible_tokens_are_as_if_absent(name: str) -> None:
    value, gradient = derivative(name)(LOGITS[:, [0, 1, 3]], REAL)
    impossible = LOGITS.copy()
    impossible[:, 2] = -np.inf
    found, found_gradient = derivative(name)(impossible, REAL)
    np.testing.assert_allclose(found, value, rtol=1e-6)
    np.testing.assert_allclose(found_gradient, np.insert(gradient, 2, 0, axis=-1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ENTROPIES)
def test_saturated_and_empty_rows_are_finite(name: str) -> None:
    rows = np.array([[1e4, -1e4, 0, 1e4 - 1], [-np.inf] * 4], np.float32)
    value, gradient = derivative(name)(rows, REAL)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    assert value[1] == 0 and not np.asarray(gradient[1]).any()


@pytest.mark.parametrize("name", ENTROPIES)
def test_masked_rows_are_not_seen(name: str) -> None:
    where = np.array([True, False])
    poisoned = np.stack([LOGITS[0], np.full(4, np.nan, np.float32)])
    value, gradient = derivative(name)(poisoned, where)
    assert value[1] == 0 and not np.asarray(gradient[1]).any()
    whole, whole_gradient = derivative(name)(LOGITS, REAL)
    np.testing.assert_array_equal(value[0], whole[0])
    np.testing.assert_array_equal(gradient[0], whole_gradient[0])


@pytest.mark.parametrize("order", [1 - 1e-6, 1 + 1e-6])
def test_orders_near_one_give_shannon(order: float) -> None:
    """In float32, where (1 - sum p^q) / (q - 1) would be noise."""
    shannon = ops.token_entropy(LOGITS)
    np.testing.assert_allclose(ops.renyi_entropy(LOGITS, alpha=order), shannon, rtol=1e-5)
    np.testing.assert_allclose(ops.tsallis_entropy(LOGITS, q=order), shannon, rtol=1e-5)


@pytest.mark.parametrize("order", [0.75, 0.76, 1.24, 1.25])
def test_both_formulas_agree_where_they_meet(order: float) -> None:
    p = np.exp(LOGITS.astype(float))
    p /= p.sum(-1, keepdims=True)
    power = (p**order).sum(-1)
    np.testing.assert_allclose(ops.renyi_entropy(LOGITS, alpha=order), np.log(power) / (1 - order), rtol=1e-5)
    np.testing.assert_allclose(ops.tsallis_entropy(LOGITS, q=order), (1 - power) / (order - 1), rtol=1e-5)


def test_renyi_orders_with_a_name() -> None:
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    np.testing.assert_allclose(ops.renyi_entropy(LOGITS, alpha=0.0), np.log(4) * np.ones(2), rtol=1e-6)
    np.testing.assert_allclose(ops.renyi_entropy(LOGITS, alpha=2.0), -np.log((p**2).sum(-1)), rtol=1e-5)
    np.testing.assert_allclose(ops.renyi_entropy(LOGITS, alpha=np.inf), -np.log(p.max(-1)), rtol=1e-5)


def test_collision_entropy_is_the_mean_squared_score() -> None:
    """E |grad_z log p(y)|^2 = 1 - exp(-H_2) (EMPG, Proposition 1)."""
    p = np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum()
    squared = np.square(np.eye(4) - p).sum(-1)
    np.testing.assert_allclose(p @ squared, 1 - np.exp(-ops.renyi_entropy(LOGITS[0])), rtol=1e-5)


def test_the_slope_of_the_tempered_entropy_is_its_derivative() -> None:
    temperature = jnp.float32(1.7)
    entropy = lambda tau: ops.token_entropy(LOGITS[0], temperature=tau)  # noqa: E731
    slope = ops.tempered_entropy(LOGITS[0], TARGETS[0], temperature=1.7).slope
    np.testing.assert_allclose(slope, jax.grad(entropy)(temperature), rtol=1e-5)


def test_an_impossible_target_has_weight_zero() -> None:
    assert ops.tempered_entropy(jnp.array([0.0, -jnp.inf]), jnp.array(1)).weight == 0


def test_negative_orders_are_refused() -> None:
    with pytest.raises(errors.UserError, match="alpha is the order of an entropy and must be at least 0, got -1"):
        ops.renyi_entropy(LOGITS, alpha=-1.0)
    with pytest.raises(errors.UserError, match="q is the order of an entropy and must be at least 0, got nan"):
        ops.tsallis_entropy(LOGITS, q=np.nan)


def siren(logits, inputs, hyper):
    entropy = ops.top_p_entropy(logits, top_p=hyper["top_p"], rule="strict")
    return jnp.sum(entropy * inputs["mask"]) / jnp.sum(inputs["mask"])


def weighted_logprobs(logits, inputs, hyper):
    logp = ops.token_statistics(logits, inputs["tokens"], temperature=hyper["temperature"]).logp
    return jnp.sum(inputs["mask"] * inputs["logprob_cotangent"] * logp)


def sampled(logits, inputs, hyper):
    advantages = exact.soft_advantage(logits, inputs["tokens"], inputs["action_rewards"], beta=hyper["entropy_coeff"])
    return -jnp.mean(advantages * ops.token_statistics(logits, inputs["tokens"]).logp)


MORE_GRADIENTS = {
    "top_p_entropy": ("gradients_siren", siren),
    "token_entropy": ("gradients_of_weighted_logprobs", weighted_logprobs),
    "soft_policy_gradient": ("gradients_of_sample_surrogate", sampled),
}


@pytest.mark.parametrize("method", MORE_GRADIENTS)
def test_gradients_that_a_file_gives_beside_the_loss(method: str) -> None:
    key, function = MORE_GRADIENTS[method]
    with jax.enable_x64(True):
        for case in json.loads((VECTORS / f"{method}.json").read_text())["cases"]:
            inputs = {name: jnp.asarray(value) for name, value in case["inputs"].items()}
            found = jax.jit(jax.grad(lambda z, i=inputs, h=case["hyperparameters"]: function(z, i, h)))(
                inputs["logits"]
            )
            np.testing.assert_allclose(found, case[key]["logits"], rtol=1e-9, atol=1e-12)

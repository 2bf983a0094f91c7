"""Log-probability and entropy the way most code has them, and the loss whose value and gradients are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def given(logits: jax.Array, targets: jax.Array, softcap: float | None = None) -> tuple[jax.Array, jax.Array]:
    """Of given logits ``[N, V]``, all steps in float32 and left to autodiff."""
    z = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    z = z if softcap is None else softcap * jnp.tanh(z / softcap)
    logp = jax.nn.log_softmax(z)
    return jnp.take_along_axis(logp, targets[:, None], 1)[:, 0], -(jnp.exp(logp) * logp).sum(-1)


def head(x: jax.Array, w: jax.Array, targets: jax.Array, softcap: float | None = None) -> tuple[jax.Array, jax.Array]:
    """Of ``x @ w``, as :func:`given`."""
    return given(x @ w, targets, softcap)


@jax.custom_vjp
def given_saved(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of given logits, with a gradient written by hand over all of them: what plain XLA can do at best."""
    return _forward(logits, targets)[0]


def _forward(logits, targets):
    z = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    lse = jax.nn.logsumexp(z, -1)
    entropy = lse - (jnp.exp(z - lse[:, None]) * z).sum(-1)
    logp = jnp.take_along_axis(z, targets[:, None], 1)[:, 0] - lse
    return (logp, entropy), (logits, targets, lse, entropy)


def _backward(residuals, cotangents):
    logits, targets, lse, entropy = residuals
    logp = logits.astype(lse.dtype) - lse[:, None]
    hit = jnp.arange(logits.shape[1])[None] == targets[:, None]
    g, h = (cotangent[:, None] for cotangent in cotangents)
    return (g * hit - jnp.exp(logp) * (g + h * (logp + entropy[:, None]))).astype(logits.dtype), None


given_saved.defvjp(_forward, _backward)


def head_saved(x: jax.Array, w: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of ``x @ w``, as :func:`given_saved`."""
    return given_saved(x @ w, targets)


def value_and_grad(form: Callable[..., Any], arrays: int) -> Callable:
    """Value and gradients, in the first ``arrays`` arguments, of ``sum(a logp + b entropy)``.

    The arguments are those of the form (``targets`` last), then ``a`` and ``b``: as advantages, they are data.
    """

    def loss(*arguments: jax.Array) -> jax.Array:
        *inputs, a, b = arguments
        logp, entropy = form(*inputs)
        return (a * logp).sum() + (b * entropy).sum()

    return jax.value_and_grad(loss, tuple(range(arrays)))

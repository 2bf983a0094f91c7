"""Output heads of a decoder beside the vocabulary: one number per position (value or reward)."""

from __future__ import annotations

import jax
from flax import nnx

from rlx.models.layers import Linear, Weights


class ScalarHead(nnx.Module):
    """``[..., D] -> [...]``: a linear map to one number, starting at zero so that training starts from no opinion."""

    def __init__(self, weights: Weights, hidden_size: int):
        self.linear = Linear(weights, (hidden_size, 1), ("embed", None), bias=True)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        flat = hidden.reshape(-1, hidden.shape[-1])
        return self.linear(flat).reshape(hidden.shape[:-1])

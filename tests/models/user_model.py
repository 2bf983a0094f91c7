"""A user's own model in ten lines: an embedding and the mean of what came before."""

import jax.numpy as jnp
import numpy as np

from rlx.models import Model


def factory(vocab_size: int = 11, hidden_size: int = 6) -> Model:
    def init(seed):
        return {"table": np.random.default_rng(seed).normal(size=(vocab_size, hidden_size)).astype(np.float32)}

    def apply(params, tokens, valid=None):
        valid = jnp.ones(tokens.shape, bool) if valid is None else valid
        x = jnp.where(valid[..., None], params["table"][tokens], 0)
        seen = jnp.maximum(jnp.cumsum(valid, -1), 1)
        return jnp.cumsum(x, axis=1) / seen[..., None], params["table"].T

    return Model(init, apply, partition=None, head=None, vocab_size=vocab_size, hidden_size=hidden_size)

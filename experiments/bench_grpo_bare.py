"""A step of GRPO as it is written without a library, for ``bench_grpo --prototype``.

The model, the head and the search in the distribution are those of rlx; there is no method, no metrics, no state of a
trainer, no mesh, no end of a response. What the library's step costs beyond this one is what its abstractions cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import workload as c
from rlx import ops
from rlx.models.sampling import chosen, invert
from rlx.rollout.truncation import truncate

CLIP, BETA = 0.2, 0.04


def make_sampler(model, top_p: float | None) -> Callable:
    """``(params, prompts [P, L], key) -> tokens [P, K, M]`` and their log-probabilities at temperature 1."""
    rows, length = c.RL_PROMPTS * c.RL_GROUP, c.RL_COMPLETION_LEN

    def sample(params, prompts, key):
        capacity = prompts.shape[1] + length
        cache, hidden, unembedding = model.decode.prefill(params, prompts, jnp.ones(prompts.shape, bool), capacity)
        cache, hidden = model.decode.fork(cache, c.RL_GROUP), jnp.repeat(hidden, c.RL_GROUP, 0)
        uniform = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (rows,)))(jnp.arange(length))

        def body(i, carry):
            cache, hidden, drawn, logprobs = carry
            logits = hidden @ unembedding
            top = logits.max(-1, keepdims=True)
            weights = jnp.exp(logits - top)
            token = invert(truncate(weights, top_p=top_p), uniform[i])
            logprobs = logprobs.at[i].set(chosen(logits, token) - top[:, 0] - jnp.log(weights.sum(-1)))
            cache, hidden, _ = model.decode.step(params, cache, token)
            return cache, hidden, drawn.at[i].set(token), logprobs

        blank = jnp.zeros((length, rows), jnp.int32), jnp.zeros((length, rows))
        *_, drawn, logprobs = jax.lax.fori_loop(0, length, body, (cache, hidden, *blank))
        return drawn.T.reshape(len(prompts), -1, length), logprobs.T.reshape(len(prompts), -1, length)

    return jax.jit(sample)


def make_update(model, optimizer) -> Callable:
    """``(state, prompts, tokens, old, rewards, reference) -> (state, values)``; the state is donated."""

    def logprobs(params, prompts, tokens):
        rows = jnp.concatenate([jnp.repeat(prompts[:, None], tokens.shape[1], 1), tokens], -1)
        hidden, unembedding = model.apply(params, rows.reshape(-1, rows.shape[-1]))
        window = ops.predicting(hidden, prompts.shape[1])
        targets = tokens.reshape(-1, tokens.shape[-1])
        found = ops.linear_token_statistics(window, unembedding, targets, statistics=("logp",))
        return found.logp.reshape(tokens.shape)

    def update(state, prompts, tokens, old, rewards, reference):
        params, opt_state = state
        base = logprobs(reference, prompts, tokens)
        spread = rewards.std(-1, keepdims=True, ddof=1) + 1e-6
        advantages = ((rewards - rewards.mean(-1, keepdims=True)) / spread)[..., None]

        def loss(params):
            new = logprobs(params, prompts, tokens)
            ratio = jnp.exp(new - old)
            gain = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages)
            kl = jnp.exp(base - new) - (base - new) - 1
            return (BETA * kl - gain).mean(), kl.mean()

        (value, kl), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        values = {"loss": value, "kl": kl, "grad_norm": optax.tree.norm(grads)}
        return (optax.apply_updates(params, updates), opt_state), values

    return jax.jit(update, donate_argnums=0)


def make_step(model, top_p: float | None, key: jax.Array) -> tuple[Callable, Any]:
    """A step ``(state, i, prompts) -> (state, values)`` and the first state; ``key`` is of the draws."""
    optimizer = optax.adamw(c.LR)
    params = jax.tree.map(jnp.asarray, model.init(0))
    first, reference = (params, jax.jit(optimizer.init)(params)), jax.device_put(model.init(0))
    sample, update = make_sampler(model, top_p), make_update(model, optimizer)

    def step(state, i, prompts):
        tokens, old = jax.device_get(sample(state[0], prompts, jax.random.fold_in(key, i)))
        rewards = np.array([[c.toy_reward(row) for row in group] for group in tokens], np.float32)
        return jax.block_until_ready(update(state, prompts, tokens, old, rewards, reference))

    return step, first

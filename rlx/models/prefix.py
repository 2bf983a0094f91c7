"""Responses that share a prompt: the prompt is evaluated once, each response attends to it and to itself.

A row is ``prompt | response 1 | ... | response K``, so that every projection sees one flat list of tokens and a row
stays on the device of its prompt; only attention knows the parts. Against the repeated sequence ``K - 1`` copies of
the prompt are saved in every layer. The prompt's keys and values collect the gradients of all K responses.

Reference: Liu et al., *Prefix Grouper: Efficient GRPO Training through Shared-Prefix Forward*, arXiv:2506.05433.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlx.errors import UserError
from rlx.models.base import Model, Params, capped
from rlx.models.layers import attend, causal_mask, score_bias, wide, within


def states(
    model: Model, params: Params, tokens: jax.Array, valid: jax.Array, *, prompt_length: int
) -> tuple[jax.Array, jax.Array]:
    """Hidden states of groups, equal to ``model.apply`` of each row from position ``prompt_length - 1`` on.

    Args:
        model: with ``shared``, as the transformer of rlx has it.
        params: of the model.
        tokens: int32 ``[P, K, T]``: the prompt, padded on the left, on the first ``prompt_length`` positions of each
            row, then the response. The prompt is read from candidate 0; see :func:`check_prompts`.
        valid: bool ``[P, K, T]``, the real tokens.
        prompt_length: L, positions of the prompt.

    Returns:
        Hidden states ``[P, K, 1 + T - L, D]``, the last prompt token first, so that ``ops.predicting(hidden, 1)`` are
        those that predict the response; and the unembedding ``[D, V]``.

    Raises:
        UserError: the model has no such form, or no prompt or no response is left of the shape.

    >>> from rlx import models
    >>> model = models.build({"vocab_size": 16, "hidden_size": 8, "num_heads": 2, "num_layers": 1})
    >>> tokens = jnp.array([[[1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 7, 8]]])
    >>> hidden, unembedding = states(model, model.init(0), tokens, jnp.ones(tokens.shape, bool), prompt_length=2)
    >>> print(hidden.shape, unembedding.shape)
    (1, 3, 3, 8) (8, 16)
    """
    if model.shared is None:
        raise UserError("this model has no shared-prefix form (Model.shared is None): call model.apply on whole rows")
    if tokens.ndim != 3 or not 1 <= prompt_length < tokens.shape[-1]:
        raise UserError(
            f"tokens must be [prompts, responses, time] with prompt_length={prompt_length} between 1 and time - 1, "
            f"not of shape {tokens.shape}"
        )
    prompt, response = np.s_[:, 0, :prompt_length], np.s_[..., prompt_length:]
    return model.shared(params, tokens[prompt], valid[prompt], tokens[response], valid[response])


def check_prompts(tokens: np.ndarray, valid: np.ndarray, prompt_length: int, real: np.ndarray | None = None) -> None:
    """Makes sure, on the host, that the candidates of each row ``[P, K, T]`` have one prompt.

    Args:
        tokens: int32 ``[P, K, T]``.
        valid: bool ``[P, K, T]``; what padding holds does not matter.
        prompt_length: positions of the prompt.
        real: bool ``[P, K]``, the candidates that count; None: all.

    Raises:
        UserError: the first candidate with another prompt than candidate 0 of its row.

    >>> check_prompts(np.array([[[1, 2, 9], [1, 3, 9]]]), np.ones((1, 2, 3), bool), 2)
    Traceback (most recent call last):
    rlx.errors.UserError: candidate 1 of row 0 has another prompt than candidate 0: ...
    """
    tokens, valid = (np.asarray(x)[..., :prompt_length] for x in (tokens, valid))
    differs = ((valid != valid[:, :1]) | (valid & (tokens != tokens[:, :1]))).any(-1)
    for row, candidate in np.argwhere(differs if real is None else differs & np.asarray(real)):
        raise UserError(
            f"candidate {candidate} of row {row} has another prompt than candidate 0: the shared-prefix form "
            "evaluates one prompt per row; use the plain form for such data"
        )


def apply(
    module: Callable,
    params: Params,
    prompts: jax.Array,
    prompt_valid: jax.Array | None,
    responses: jax.Array,
    response_valid: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """The transformer on groups; see :class:`rlx.models.base.SharedPolicy`."""
    model = module(params)
    (count, length), (_, group, size) = prompts.shape, responses.shape
    prompt_valid = jnp.ones(prompts.shape, bool) if prompt_valid is None else prompt_valid
    response_valid = jnp.ones(responses.shape, bool) if response_valid is None else response_valid
    prompt_positions = causal_mask(prompts.shape, prompt_valid)[1]
    positions = prompt_valid.sum(-1)[:, None, None] + jnp.cumsum(response_valid, -1) - 1

    def rows(prompt, response):
        return jnp.concatenate([prompt, response.reshape(count, -1)], axis=1)

    attention = functools.partial(_look, model.config.attention_softcap)

    def look(window):
        prompt_mask = causal_mask(prompts.shape, prompt_valid, window)[0]
        own = causal_mask((count * group, size), response_valid.reshape(-1, size), window)[0]
        seen = prompt_valid[:, None, None]
        if window:
            seen = seen & within(window, positions, jnp.cumsum(prompt_valid, -1)[:, None] - 1)
        return jax.tree_util.Partial(attention, prompt_mask, seen, own.reshape(count, group, size, size))

    hidden = model.encode(rows(prompts, responses), rows(prompt_positions, jnp.maximum(positions, 0)), look)
    last = jnp.broadcast_to(hidden[:, None, length - 1 : length], (count, group, 1, hidden.shape[-1]))
    response = hidden[:, length:].reshape(count, group, size, -1)
    return jnp.concatenate([last, response], axis=2), model.output_matrix()


def _look(softcap: float, prompt_mask, seen, own, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention within a row ``prompt | response 1 | ... | response K``."""
    length = prompt_mask.shape[-1]
    prompt = attend(q[:, :, :length], k[:, :, :length], v[:, :, :length], prompt_mask, softcap)
    return jnp.concatenate([prompt, attend_group(q[:, :, length:], k, v, seen, own, softcap)], axis=2)


def attend_group(
    q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array, own: jax.Array, softcap: float = 0.0
) -> jax.Array:
    """Attention of the responses to their prompt and to themselves: one softmax over two sets of keys.

    The queries of all K responses meet the prompt's keys in one product; no key is copied.

    Args:
        q: ``[P, H, K * M, d]``, scaled queries of the responses.
        k: ``[P, G, L + K * M, d]``, keys of the prompt, then of the responses; ``H`` a multiple of ``G``.
        v: ``[P, G, L + K * M, d]``.
        seen: bool ``[P, K | 1, M | 1, L]``, the tokens of the prompt that token ``t`` of a response may see.
        own: bool ``[P, K, M, M]``, True where token ``t`` of a response may see its token ``s``.
        softcap: see :func:`rlx.models.layers.capped`.

    Returns:
        ``[P, H, K * M, d]``.
    """
    p, h, _, d = q.shape
    groups, length, (count, size) = k.shape[1], seen.shape[-1], own.shape[1:3]
    kind = wide(q.dtype)
    product = functools.partial(jnp.einsum, preferred_element_type=kind)
    whole = (p, groups, count, h // groups, size)
    far_k, far_v = (x[:, :, :length] for x in (k, v))
    near_k, near_v = (x[:, :, length:].reshape(p, groups, count, size, d) for x in (k, v))
    q = q.reshape(p, groups, h // groups, count, size, d).swapaxes(2, 3)
    far = product("pgqd,pgsd->pgqs", q.reshape(p, groups, -1, d), far_k).reshape(*whole, length)
    near = product("pgkqd,pgksd->pgkqs", q.reshape(p, groups, count, -1, d), near_k).reshape(*whole, size)
    far = capped(far, softcap) + score_bias(seen, kind)[:, None, :, None]
    near = capped(near, softcap) + score_bias(own, kind)[:, None, :, None]
    top = jax.lax.stop_gradient(jnp.maximum(far.max(-1, keepdims=True), near.max(-1, keepdims=True)))
    far, near = jnp.exp(far - top), jnp.exp(near - top)
    total = (far.sum(-1) + near.sum(-1))[..., None]
    far, near = far.astype(v.dtype), near.astype(v.dtype)
    out = product("pgqs,pgsd->pgqd", far.reshape(p, groups, -1, length), far_v).reshape(*whole, d)
    out = out + product("pgkqs,pgksd->pgkqd", near.reshape(p, groups, count, -1, size), near_v).reshape(*whole, d)
    return (out / total).astype(v.dtype).swapaxes(2, 3).reshape(p, h, -1, d)

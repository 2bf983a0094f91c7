"""The head that learns SparsePO's masks, from hidden states of the reference policy, and its method."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.method import Constants, Method, PyTree, Shapes, stateless, take
from rlx.preference import token_scores
from rlx.preference.masks import sparsepo
from rlx.types import Array, Batch


class MaskHead(NamedTuple):
    """Parameters of a mask.

    Attributes:
      scale, shift: ``[D]`` of the layer norm, which the layers share.
      weight: ``[L, D]`` of a linear map to one number for each layer.
      bias: ``[L]``.
      mixing: ``[L]`` weights of the layers.
    """

    scale: Array
    shift: Array
    weight: Array
    bias: Array
    mixing: Array


def init_mask_head(key: Array, hidden_size: int, layers: int = 1) -> MaskHead:
    """Linear maps drawn uniformly within :math:`1/\\sqrt{D}`, layers mixed evenly.

    A random sign of the mixing weights, as a plain linear layer would draw it, kills the mask of a single layer for
    good in one of two cases: relu passes nothing on, and no gradient comes back.

    >>> init_mask_head(jax.random.key(0), 8).weight.shape
    (1, 8)
    """
    bound = 1 / math.sqrt(hidden_size)
    weight, bias = (
        jax.random.uniform(k, shape, minval=-bound, maxval=bound)
        for k, shape in zip(jax.random.split(key), ((layers, hidden_size), (layers,)), strict=True)
    )
    return MaskHead(jnp.ones(hidden_size), jnp.zeros(hidden_size), weight, bias, jnp.full(layers, 1 / layers))


def learned_mask(head: MaskHead, states: Array, *, epsilon: float = 1e-5) -> Array:
    r"""Masks of tokens, at least 0: ``[..., D] -> [...]`` for one layer, ``[..., L, D] -> [...]`` for several.

    .. math:: m = \mathrm{relu}\Big(\sum_l c_l\,\mathrm{relu}(w_l \cdot \mathrm{LN}(h_l) + b_l)\Big)

    >>> head = MaskHead(jnp.ones(2), jnp.zeros(2), jnp.array([[1.0, 0.0]]), jnp.zeros(1), jnp.ones(1))
    >>> print(learned_mask(head, jnp.array([[3.0, 1.0], [1.0, 3.0]])).round(3))
    [1. 0.]
    """
    states = jax.lax.stop_gradient(numerics.accumulate(states))
    states = states if len(head.bias) > 1 else states[..., None, :]
    spread = jnp.sqrt(numerics.variance(states, -1, keepdims=True) + epsilon)
    normal = (states - numerics.mean(states, -1, keepdims=True)) / spread * head.scale + head.shift
    layers = jax.nn.relu(jnp.einsum("...ld,ld->...l", normal, head.weight) + head.bias)
    return jax.nn.relu(layers @ head.mixing)


def sparsepo_method(
    *,
    beta: float = 0.1,
    l1_reward: float = 0.0,
    l1_kl: float = 0.0,
    independent: bool = False,
    layers: int = 1,
    axis_name: numerics.AxisName = None,
) -> Method:
    """SparsePO with masks that it learns, from logits of both policies and hidden states of the reference.

    The authors' code also drops 1 % of the masks at random in training, which this leaves out.

    Args:
      beta: strength of the KL regularisation.
      l1_reward: weight of the norm of the reward masks.
      l1_kl: weight of the norm of the KL masks.
      independent: a mask of its own for the KL; otherwise one mask serves both.
      layers: layers of the reference whose states come; above 1 they are ``[..., 2, T, L, D]``.
      axis_name: mapped axes the batch is spread over.

    Raises:
      UserError: layers is below 1, or the model tells no hidden size.

    >>> method = sparsepo_method(independent=True)
    >>> sorted(method.init(jax.random.key(0), rlx.method.Shapes(hidden_size=16))[0])
    ['kl', 'reward']
    """
    if layers < 1:
        raise errors.UserError(
            f"layers counts the layers whose states make a mask and must be at least 1, got {layers}."
        )
    keywords = {"beta": beta, "l1_reward": l1_reward, "l1_kl": l1_kl}
    lifted = stateless(sparsepo, keywords=keywords, axis_name=axis_name)
    names = ("reward", "kl") if independent else ("reward",)
    needs = ("policy_logits", "reference_logits", "tokens", "reference_states")

    def init(key: Array, shapes: Shapes) -> tuple[PyTree, PyTree]:
        if shapes.hidden_size <= 0:
            raise errors.UserError(f"sparsepo needs the hidden size of the model, got {shapes.hidden_size}.")
        keys = jax.random.split(key, len(names))
        return {
            n: init_mask_head(k, shapes.hidden_size, layers)._asdict() for n, k in zip(names, keys, strict=True)
        }, {}

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        policy_logits, reference_logits, tokens, states = (take(batch, name, lifted.name) for name in needs)
        where = batch.get("where")
        found = token_scores.distributions(policy_logits, reference_logits, tokens, where=where)
        # masked before the head, where a NaN would reach the gradient of its parameters
        extra = states.ndim - tokens.ndim
        states = numerics.clean(states, None if where is None else where.reshape(where.shape + (1,) * extra))
        masks = [learned_mask(MaskHead(**params[name]), states) for name in names]
        arrays = {"logprobs": found.logprobs, "token_kl": found.kl, "reference_logprobs": found.reference_logprobs}
        arrays |= {"reward_masks": masks[0], "kl_masks": masks[-1], "where": where}
        return lifted.apply(constants, arrays, params)

    hyperparameters = keywords | {"independent": independent, "layers": layers}
    return lifted._replace(init=init, apply=apply, needs=needs, hyperparameters=hyperparameters)

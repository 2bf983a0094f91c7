"""SparsePO and MaPO: token-level DPO whose log-ratios and KLs are weighted by masks ``[..., 2, T]``, chosen first.

A unit is a pair. ``where [..., 2, T]`` marks response tokens; a response without any counts as margin 0, a pair
without any is left out. With masks of 1 the loss is TDPO1. :mod:`rlx.preference.mask_head` learns the masks.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.aggregate import mean
from rlx.preference import labels, links, scores, token_scores
from rlx.types import Array, Reduce, check_shapes


def l1(masks: Array, where: Array | None = None) -> Array:
    """L1 norm of the masks (at least 0) of both responses, ``[..., 2, T] -> [...]``; slope 0 where a mask is 0.

    >>> print(l1(jnp.array([[1.0, 0.0], [0.5, 0.25]])))
    1.75
    """
    return numerics.sum(jax.nn.relu(numerics.clean(numerics.accumulate(masks), where)), (-2, -1), where=where)


def sparsepo(
    logprobs: Array,
    token_kl: Array,
    reward_masks: Array,
    kl_masks: Array,
    reference_logprobs: Array,
    *,
    beta: float = 0.1,
    l1_reward: float = 0.0,
    l1_kl: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Sparse token-level preference optimisation: masks say which tokens are rewarded and which are held back.

    .. math:: \ell = -\log\sigma\left(\beta\,[u_w - u_l + K_w - K_l]\right)
       + \lambda_r \|m^r\|_1 + \lambda_k \|m^k\|_1

    .. math:: u = \sum_t m^r_t \log\frac{\pi(y_t)}{\pi_{ref}(y_t)},\quad
       K = \sum_t m^k_t\,\mathrm{KL}(\pi_{ref}(\cdot \mid s_t)\,\|\,\pi(\cdot \mid s_t))

    The norms are sums over the tokens of both responses.

    Args:
      logprobs: ``[..., 2, T]`` token log-probabilities under the policy (nats), chosen first.
      token_kl: ``[..., 2, T]`` KL at the token, from the reference to the policy (nats).
      reward_masks: ``[..., 2, T]`` masks of the log-ratios, at least 0.
      kl_masks: ``[..., 2, T]`` masks of the KLs, at least 0.
      reference_logprobs: ``[..., 2, T]`` token log-probabilities under the reference policy; a constant.
      beta: strength of the KL regularisation.
      l1_reward: weight of the norm of the reward masks.
      l1_kl: weight of the norm of the KL masks.
      where: ``[..., 2, T]`` response tokens.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or there are not two candidates.

    >>> policy, masks = jnp.array([[-1.0, -9.0], [-2.0, -1.0]]), jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> print(f"{sparsepo(policy, jnp.zeros((2, 2)), masks, masks, jnp.full((2, 2), -1.0), beta=1.0):.4f}")
    0.3133

    References:
      Christopoulou et al., *SparsePO: Controlling Preference Alignment of LLMs via Sparse Token Masks*,
      arXiv:2410.05102.
    """
    arrays = {"logprobs": logprobs, "token_kl": token_kl, "reward_masks": reward_masks, "kl_masks": kl_masks}
    token_scores.check_token_pairs("sparsepo", **arrays, reference_logprobs=reference_logprobs, where=where)
    u = token_scores.weighted_sum(reward_masks, scores.log_ratio(logprobs, reference_logprobs), where)
    kl = token_scores.weighted_sum(kl_masks, token_kl, where)
    preference = token_scores.compare_responses(beta * (u + kl), labels.hard, links.logistic, where, None)
    sparsity = l1_reward * l1(reward_masks, where) + l1_kl * l1(kl_masks, where)
    return aggregate.finish(preference + sparsity, token_scores.pair_where(where), reduce)


def mapo_activation_mask(activations: Array, *, where: Array | None = None) -> Array:
    r"""Masks from activations: those of a response scaled to [0, 1], a constant.

    .. math:: m_t = \frac{a_t - \min a}{\max a - \min a}

    The paper standardises the activations first, which cancels. Where all activations of a response are equal, as in a
    response of one token, every mask is 1.

    Args:
      activations: ``[..., T]`` means over the hidden dimension of the reference's activations.
      where: ``[..., T]`` response tokens.

    Returns:
      ``[..., T]``, 0 where masked.

    >>> print(mapo_activation_mask(jnp.array([2.0, 4.0, 3.0])))
    [0.  1.  0.5]

    References:
      Christopoulou et al., arXiv:2410.05102.
    """
    check_shapes(activations=activations, where=where)
    activations = jax.lax.stop_gradient(numerics.accumulate(activations))
    low = numerics.clean(activations, where, jnp.inf).min(-1, keepdims=True)
    high = numerics.clean(activations, where, -jnp.inf).max(-1, keepdims=True)
    width = high - low
    scaled = jnp.where(width > 0, (activations - low) / jnp.where(width > 0, width, 1), 1)
    return numerics.clean(scaled, where)


def state_masks(reference_states: Array, where: Array) -> Array:
    """:func:`mapo_activation_mask` of hidden states ``[..., T, D]``, or of layers ``[..., T, L, D]``, averaged over L.

    >>> print(state_masks(jnp.array([[0.0, 2.0], [2.0, 2.0]]), jnp.array([True, True])))
    [0. 1.]
    """
    activations = numerics.mean(reference_states, -1)
    layers = activations[None] if activations.ndim == where.ndim else jnp.moveaxis(activations, -1, 0)
    return numerics.mean(mapo_activation_mask(layers, where=where[None]), 0)


def mapo(
    policy_logits: Array,
    reference_logits: Array,
    tokens: Array,
    reference_states: Array,
    *,
    beta: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""SparsePO without anything to learn: one mask for rewards and KLs, from the reference's activations.

    .. math:: \ell = -\log\sigma\left(\beta\,[u_w - u_l + K_w - K_l]\right),\quad m^r = m^k = m

    with u and K of :func:`sparsepo` and m of :func:`mapo_activation_mask`, averaged over the layers.

    Args:
      policy_logits: ``[..., 2, T, V]`` logits, chosen first; position t predicts ``tokens[..., t]``.
      reference_logits: ``[..., 2, T, V]`` the same under the reference policy; a constant.
      tokens: ``[..., 2, T]`` int response tokens.
      reference_states: ``[..., 2, T, D]`` hidden states of the reference policy, or ``[..., 2, T, L, D]`` of L layers.
      beta: strength of the KL regularisation (0.8 in the authors' example).
      where: ``[..., 2, T]`` response tokens.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or there are not two candidates.

    >>> logits, tokens, states = jnp.zeros((2, 3, 5)), jnp.zeros((2, 3), int), jnp.ones((2, 3, 4))
    >>> print(f"{mapo(logits, logits, tokens, states):.4f}")
    0.6931

    References:
      Christopoulou et al., arXiv:2410.05102.
    """
    if reference_states.shape[: tokens.ndim] != tokens.shape:
        raise errors.UserError(
            f"reference_states has shape {reference_states.shape}, but tokens has {tokens.shape}: mapo wants a state "
            "for each token, [..., 2, T, D] or [..., 2, T, L, D]."
        )
    masks = state_masks(reference_states, jnp.ones(tokens.shape, bool) if where is None else where)
    found = token_scores.distributions(policy_logits, reference_logits, tokens, where=where)
    arrays = found.logprobs, found.kl, masks, masks, found.reference_logprobs
    return sparsepo(*arrays, beta=beta, where=where, reduce=reduce)

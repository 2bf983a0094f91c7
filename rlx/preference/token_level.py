"""Preference losses over whole next-token distributions: ``[..., 2, T, V]``, chosen first; a unit is a pair.

``where [..., 2, T]`` marks response tokens; a response without any counts as margin 0, a pair without any is left out.
"""

import jax

from rlx import numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores, token_scores
from rlx.types import Array, Reduce


def sequence_scores(
    policy_logits: Array, reference_logits: Array, tokens: Array, *, where: Array | None = None
) -> tuple[Array, Array]:
    r"""Log-ratio and sequential KL of responses, both ``[..., K]`` in nats; the reference is a constant.

    .. math:: d = \sum_t \log\frac{\pi(y_t \mid s_t)}{\pi_{ref}(y_t \mid s_t)},\quad
       K = \sum_t \mathrm{KL}(\pi_{ref}(\cdot \mid s_t)\,\|\,\pi(\cdot \mid s_t))

    The KL is exact over the vocabulary; tokens that the policy rules out (logit -inf) leave the reference first.

    Args:
      policy_logits: ``[..., K, T, V]``, position t predicts ``tokens[..., t]``.
      reference_logits: ``[..., K, T, V]`` the same under the reference policy.
      tokens: ``[..., K, T]`` int response tokens.
      where: ``[..., K, T]`` response tokens.

    Raises:
      UserError: the shapes disagree.

    >>> d, kl = sequence_scores(jnp.zeros((1, 2)), jnp.array([[0.0, -jnp.inf]]), jnp.array([0]))
    >>> print(f"{d:.4f} {kl:.4f}")
    -0.6931 0.6931
    """
    found = token_scores.distributions(policy_logits, reference_logits, tokens, where=where)
    d = found.logprobs - found.reference_logprobs
    return numerics.sum(d, -1, where=where), numerics.sum(found.kl, -1, where=where)


def tdpo(
    policy_logits: Array,
    reference_logits: Array,
    tokens: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
    chosen_gradient: bool = False,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Token-level DPO (TDPO2): the margin minus the difference of the sequential KLs.

    .. math:: \ell = -\log\sigma\left(\beta\left[d_w - d_l - \alpha\,(K_l - \mathrm{sg}(K_w))\right]\right)

    with d and K of :func:`sequence_scores`.

    Args:
      policy_logits: ``[..., 2, T, V]`` logits, chosen first; position t predicts ``tokens[..., t]``.
      reference_logits: ``[..., 2, T, V]`` the same under the reference policy; a constant.
      tokens: ``[..., 2, T]`` int response tokens.
      beta: strength of the KL regularisation.
      alpha: weight of the difference of the KLs.
      chosen_gradient: let the gradient through the KL of the chosen response (TDPO1).
      where: ``[..., 2, T]`` response tokens.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or there are not two candidates.

    >>> logits, tokens = jnp.zeros((2, 3, 5)), jnp.zeros((2, 3), int)
    >>> print(f"{tdpo(logits, logits, tokens):.4f}")
    0.6931

    References:
      Zeng et al., *Token-level Direct Preference Optimization*, arXiv:2404.11999.
    """
    token_scores.check_token_pairs("tdpo", tokens=tokens)
    d, kl = sequence_scores(policy_logits, reference_logits, tokens, where=where)
    kl_chosen = kl[..., 0] if chosen_gradient else jax.lax.stop_gradient(kl[..., 0])
    margin = scores.margin(d) - alpha * (kl[..., 1] - kl_chosen)
    return compare.margins(beta * margin, labels.hard, links.logistic, token_scores.pair_where(where), reduce)


def tdpo1(
    policy_logits: Array,
    reference_logits: Array,
    tokens: Array,
    *,
    beta: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""TDPO1: the sequential KLs at full weight, and both with gradient.

    .. math:: \ell = -\log\sigma\left(\beta\left[d_w - d_l - (K_l - K_w)\right]\right)

    Args:
      policy_logits: ``[..., 2, T, V]`` logits, chosen first; position t predicts ``tokens[..., t]``.
      reference_logits: ``[..., 2, T, V]`` the same under the reference policy; a constant.
      tokens: ``[..., 2, T]`` int response tokens.
      beta: strength of the KL regularisation.
      where: ``[..., 2, T]`` response tokens.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or there are not two candidates.

    >>> logits, tokens = jnp.zeros((2, 3, 5)), jnp.zeros((2, 3), int)
    >>> print(f"{tdpo1(logits, logits, tokens):.4f}")
    0.6931

    References:
      Zeng et al., *Token-level Direct Preference Optimization*, arXiv:2404.11999.
    """
    arrays = policy_logits, reference_logits, tokens
    return tdpo(*arrays, beta=beta, alpha=1.0, chosen_gradient=True, where=where, reduce=reduce)

"""Pairwise losses: candidates on the last axis ``[..., 2]``, chosen first; leading axes are the batch.

``where [..., 2]`` marks real responses; ``reduce=None`` gives one value per pair ``[...]``, 0 where masked.
"""

import jax.numpy as jnp

from rlx import errors
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Link, Reduce, check_pairs, check_positive


def dpo(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    label: float | Array = labels.hard,
    link: Link = links.logistic,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Direct preference optimisation.

    .. math:: \ell = q\,f(\beta m) + (1-q)\,f(-\beta m),\quad f = -\log\sigma,\quad
       m = \log\frac{\pi(y_w)}{\pi_{ref}(y_w)} - \log\frac{\pi(y_l)}{\pi_{ref}(y_l)}

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      label: probability q that the chosen response is better, a number or ``[...]`` (:mod:`rlx.preference.labels`).
      link: loss of a margin (:mod:`rlx.preference.links`).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{dpo(jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0]), beta=1.0):.4f}")
    0.3133

    References:
      Rafailov et al., *Direct Preference Optimization*, arXiv:2305.18290.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    return compare.pairs(beta * scores.log_ratio(policy_logps, reference_logps), label, link, where, reduce)


def rdpo(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    epsilon: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Provably robust DPO: unbiased under labels flipped with rate epsilon.

    .. math:: \ell = \frac{(1-\epsilon)\,f(\beta m) - \epsilon\,f(-\beta m)}{1 - 2\epsilon},\quad f = -\log\sigma

    The loss is unbounded below on flipped pairs (negative values are correct).

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      epsilon: rate of flipped labels, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the shapes disagree.

    >>> policy, reference = jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0])
    >>> print(f"{rdpo(policy, reference, beta=1.0, epsilon=0.25):.4f}")
    -0.1867

    References:
      Chowdhury et al., *Provably Robust DPO*, arXiv:2403.00409.
    """
    return dpo(policy_logps, reference_logps, beta=beta, label=labels.debiased(epsilon), where=where, reduce=reduce)


def cdpo(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    epsilon: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Conservative DPO: label smoothing, which stops raising the margin at :math:`\sigma(\beta m) = 1 - \epsilon`.

    .. math:: \ell = (1-\epsilon)\,f(\beta m) + \epsilon\,f(-\beta m),\quad f = -\log\sigma

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      epsilon: rate of flipped labels, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the shapes disagree.

    >>> policy, reference = jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0])
    >>> print(f"{cdpo(policy, reference, beta=1.0, epsilon=0.25):.4f}")
    0.5633

    References:
      Mitchell, *A note on DPO with noisy preferences and relationship to IPO*, 2023; baseline of arXiv:2403.00409.
    """
    return dpo(policy_logps, reference_logps, beta=beta, label=labels.smoothed(epsilon), where=where, reduce=reduce)


def dpo_reference_free(
    policy_logps: Array,
    *,
    beta: float = 0.1,
    epsilon: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DPO with a uniform reference: the margin is that of the policy alone.

    .. math:: \ell = -\log\sigma\left(\beta\log\frac{\pi(y_w)}{\pi(y_l)}\right)

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      beta: scale of the margin.
      epsilon: label smoothing as in :func:`cdpo`, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the last axis is not 2.

    >>> print(f"{dpo_reference_free(jnp.array([-1.0, -2.0]), beta=1.0):.4f}")
    0.3133

    References:
      Rafailov et al., *Direct Preference Optimization*, arXiv:2305.18290.
    """
    reference_logps = jnp.zeros_like(policy_logps)
    return cdpo(policy_logps, reference_logps, beta=beta, epsilon=epsilon, where=where, reduce=reduce)


def ipo(
    policy_logps: Array,
    reference_logps: Array,
    lengths: Array | None = None,
    *,
    tau: float = 0.1,
    length_normalize: bool = False,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Identity preference optimisation.

    .. math:: \ell = \left(h - \frac{1}{2\tau}\right)^2,\quad h = d_w - d_l
       \quad\text{or}\quad h = \frac{d_w}{|y_w|} - \frac{d_l}{|y_l|},\quad d = \log\frac{\pi(y)}{\pi_{ref}(y)}

    The first form is the paper's equation 17; its authors used the second one for the reported results, as TRL does.
    The same ``tau`` means different strengths in the two.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      lengths: ``[..., 2]`` number of response tokens; read by ``length_normalize`` alone.
      tau: regularisation strength (TRL: ``beta``), above 0.
      length_normalize: divide each log-ratio by its number of tokens; an empty response divides by 1.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: tau is not above 0, lengths are missing, or the shapes disagree.

    >>> print(f"{ipo(jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0])):.2f}")
    16.00

    References:
      Azar et al., *A General Theoretical Paradigm to Understand Learning from Human Preferences*, arXiv:2310.12036.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, lengths=lengths, where=where)
    check_positive(tau=tau)
    score = scores.log_ratio(policy_logps, reference_logps)
    if length_normalize:
        if lengths is None:
            raise errors.UserError("ipo with length_normalize=True needs lengths: the response tokens, [..., 2].")
        score = scores.per_token(score, lengths)
    return compare.pairs(score, labels.hard, links.squared(1 / (2 * tau)), where, reduce)


def simpo(
    policy_logps: Array,
    lengths: Array,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    epsilon: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Simple preference optimisation: reference-free, length-normalised, with a target margin.

    .. math:: \ell = -\log\sigma\left(\beta\,\frac{\log\pi(y_w)}{|y_w|} - \beta\,\frac{\log\pi(y_l)}{|y_l|}
       - \gamma\right)

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      lengths: ``[..., 2]`` number of response tokens; an empty response divides by 1.
      beta: scale of the average log-probabilities, 2 to 10 in the paper.
      gamma: the target margin itself, not its ratio to beta (0.3 to 1.6 in the paper).
      epsilon: smoothing of the label on the same shifted margin, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the shapes disagree.

    >>> print(f"{simpo(jnp.array([-4.0, -4.0]), jnp.array([4, 2]), beta=2.0, gamma=1.0):.4f}")
    0.3133

    References:
      Meng et al., *SimPO: Simple Preference Optimization with a Reference-Free Reward*, arXiv:2405.14734.
    """
    check_pairs(policy_logps=policy_logps, lengths=lengths, where=where)
    margin = beta * scores.margin(scores.per_token(policy_logps, lengths)) - gamma
    return compare.margins(margin, labels.smoothed(epsilon), links.logistic, compare.pair_where(where), reduce)

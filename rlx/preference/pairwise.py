"""Losses of the margin between two log-ratios: candidates on the last axis ``[..., 2]``, chosen first.

Leading axes are the batch. ``where [..., 2]`` marks real responses; ``reduce=None`` gives one value per pair ``[...]``,
0 where masked.
"""

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


def dpo_length_normalized(
    policy_logps: Array,
    reference_logps: Array,
    lengths: Array,
    *,
    beta: float = 5.0,
    label: float | Array = labels.hard,
    link: Link = links.logistic,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DPO on log-ratios per token.

    .. math:: \ell = -\log\sigma\left(\beta\left[\frac{d_w}{|y_w|} - \frac{d_l}{|y_l|}\right]\right),\quad
       d = \log\frac{\pi(y)}{\pi_{ref}(y)}

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      lengths: ``[..., 2]`` number of response tokens; an empty response divides by 1.
      beta: strength of the regularisation; as log-ratios of tokens are small, far larger than in :func:`dpo`.
      label: probability that the chosen response is better, a number or ``[...]``.
      link: loss of a margin (:mod:`rlx.preference.links`).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> policy, reference = jnp.array([-2.0, -4.0]), jnp.array([-2.0, -2.0])
    >>> print(f"{dpo_length_normalized(policy, reference, jnp.array([3, 2]), beta=1.0):.4f}")
    0.3133

    References:
      Lambert et al., *Tulu 3: Pushing Frontiers in Open Language Model Post-Training*, arXiv:2411.15124.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, lengths=lengths, where=where)
    score = scores.per_token(scores.log_ratio(policy_logps, reference_logps), lengths)
    return compare.pairs(beta * score, label, link, where, reduce)


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
    check_positive(tau=tau)
    shape = {"beta": 1.0, "link": links.squared(1 / (2 * tau)), "where": where, "reduce": reduce}
    if not length_normalize:
        return dpo(policy_logps, reference_logps, **shape)
    if lengths is None:
        raise errors.UserError("ipo with length_normalize=True needs lengths: the response tokens, [..., 2].")
    return dpo_length_normalized(policy_logps, reference_logps, lengths, **shape)


def discopop(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.05,
    tau: float = 0.05,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Discovered preference optimisation: logistic and exponential loss, mixed by the margin itself.

    .. math:: \ell = (1-a)\,(-\log\sigma(x)) + a\,e^{-x},\quad x = \beta m,\quad a = \sigma(x/\tau)

    Not convex: around a margin of 0 it rises before it falls. Gradients flow through a.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      tau: width of the transition, in (0, 1): beyond, the exponential grows without bound on the left.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: tau is not above 0, the shapes disagree or the last axis is not 2.

    >>> print(f"{discopop(jnp.array([-1.0, -1.0]), jnp.array([-1.0, -1.0])):.4f}")
    0.8466

    References:
      Lu et al., *Discovering Preference Optimization Algorithms with and for Large Language Models*, arXiv:2406.08414.
    """
    check_positive(tau=tau)
    return dpo(policy_logps, reference_logps, beta=beta, link=links.modulated(tau), where=where, reduce=reduce)

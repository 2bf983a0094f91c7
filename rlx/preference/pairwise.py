"""Pairwise losses: candidates on the last axis ``[..., 2]``, chosen first; leading axes are the batch.

``where [..., 2]`` marks real responses; ``reduce=None`` gives one value per pair ``[...]``, 0 where masked.
"""

from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Link, Reduce, check_pairs


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

"""Divergences other than the reverse KL: between policy and reference, between preferences, between distributions.

Candidates on the last axis; ``where`` marks real ones; ``reduce=None`` gives one value per pair ``[...]``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.scipy.special import entr

from rlx import numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, named, scores
from rlx.types import Array, Reduce, check_pairs, check_positive, check_shapes

DIVERGENCES: dict[str, Callable[[Array, float], Array]] = {
    "reverse_kl": lambda d, alpha: d,
    "forward_kl": lambda d, alpha: scores.alpha_power(d, 1.0),
    "js": lambda d, alpha: jax.nn.log_sigmoid(d),
    "alpha": scores.alpha_power,
}
"""Name of a divergence -> :math:`f'(e^d)` up to a constant, of the log-ratio d and the alpha of the last one."""


def fdpo(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    divergence: str | Callable[[Array, float], Array] = "js",
    alpha: float = 0.5,
    epsilon: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DPO whose policy stays close to the reference in another f-divergence.

    .. math:: \ell = -\log\sigma\left(\beta\left[f'(u_w) - f'(u_l)\right]\right),\quad
       u = \frac{\pi(y)}{\pi_{ref}(y)}

    with :math:`f' = \log u` (reverse KL: :func:`rlx.dpo`), :math:`-1/u` (forward KL), :math:`\log\frac{2u}{1+u}`
    (Jensen-Shannon) or :math:`(1 - u^{-\alpha})/\alpha`. Exponents are capped (:func:`scores.alpha_power`). TRL from
    version 0.29 on calls :math:`1 - \alpha` alpha.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the regularisation.
      divergence: ``reverse_kl``, ``forward_kl``, ``js``, ``alpha``, or a function of the log-ratio and alpha.
      alpha: of the alpha-divergence, in [0, 1]: 0 is the reverse KL, 1 the forward one.
      epsilon: label smoothing, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: unknown divergence, epsilon outside [0, 0.5), or the shapes disagree.

    >>> policy, reference = jnp.log(jnp.array([0.4, 0.1])), jnp.log(jnp.array([0.2, 0.1]))
    >>> print(f"{fdpo(policy, reference, beta=2.0, divergence='forward_kl'):.4f}")
    0.3133

    References:
      Wang et al., *Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints*,
      arXiv:2309.16240.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    derivative = named.by_name(divergence, DIVERGENCES, "divergence")
    score = derivative(numerics.clean(scores.log_ratio(policy_logps, reference_logps), where), alpha)
    margin = scores.finite(beta * scores.margin(score))  # subtracted first, as beta may lift capped scores to infinity
    return compare.margins(margin, labels.smoothed(epsilon), links.logistic, compare.pair_where(where), reduce)


def exo_pair(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    epsilon: float = 1e-3,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Efficient exact optimisation: the reverse of cDPO's divergence between model and label, mode-seeking.

    .. math:: \ell = \mathrm{KL}\left((\sigma(\beta m), \sigma(-\beta m))\,\|\,(1-\epsilon, \epsilon)\right)

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      epsilon: probability of the rejected response under the label, in (0, 0.5); at 0 the loss is infinite.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside (0, 0.5), the shapes disagree or the last axis is not 2.

    >>> margin = jnp.array([jnp.log(9.0), 0.0])
    >>> print(f"{exo_pair(margin, jnp.zeros(2), beta=1.0, epsilon=0.1):.4f}")
    0.0000

    References:
      Ji et al., *Towards Efficient Exact Optimization of Language Model Alignment*, arXiv:2402.00856.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    check_positive(epsilon=epsilon)
    score = beta * scores.log_ratio(policy_logps, reference_logps)
    return compare.pairs(score, labels.hard, links.reverse_kl(labels.flip_rate(epsilon)), where, reduce)


class DifferentialInformation(NamedTuple):
    """What a policy has learnt beyond its reference.

    Attributes:
      did: ``[..., K]`` the differential information distribution; 0 where masked.
      entropy: ``[...]`` its entropy in nats: low where training has sharpened, high where it has spread.
      optimal_rejected: ``[..., K]`` distribution of the rejected responses for which DPO recovers the policy.
    """

    did: Array
    entropy: Array
    optimal_rejected: Array


def differential_information(
    policy_logps: Array, reference_logps: Array, *, beta: float = 0.1, where: Array | None = None
) -> DifferentialInformation:
    r"""The differential information distribution over outcomes that can be listed.

    .. math:: q(y) \propto \frac{\pi(y)}{\pi_{ref}(y)},\quad
       \pi_l(y) \propto \pi_{ref}(y)\left(\frac{\pi_{ref}(y)}{\pi(y)}\right)^{\beta}

    If chosen responses come from :math:`\pi_{ref}` and rejected ones from :math:`\pi_l`, DPO's optimum is the policy.

    Args:
      policy_logps: ``[..., K]`` log-probabilities of all outcomes (nats).
      reference_logps: ``[..., K]`` the same under the reference policy.
      beta: strength of DPO's KL regularisation.
      where: ``[..., K]`` real outcomes.

    Raises:
      UserError: the shapes disagree.

    >>> logs = jnp.log(jnp.array([0.8, 0.2]))
    >>> print(differential_information(logs, logs).did)
    [0.5 0.5]

    References:
      Won et al., *Differential Information Distribution: A Bayesian Perspective on Direct Preference Optimization*,
      arXiv:2505.23761.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    policy, reference = numerics.accumulate(policy_logps), numerics.accumulate(reference_logps)
    did = numerics.softmax(policy - reference, where=where)
    rejected = numerics.softmax(reference + beta * (reference - policy), where=where)
    return DifferentialInformation(did, entr(did).sum(-1), rejected)

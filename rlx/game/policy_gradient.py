"""Policy gradients of regularised preference games, and preference losses that explore."""

import jax

from rlx import aggregate, numerics
from rlx.aggregate import mean, sequence_sum
from rlx.game import win_rate
from rlx.preference import compare, labels, links, pairwise
from rlx.preference.scores import log_ratio
from rlx.types import Array, Link, Reduce, check_shapes


def nash_md(
    logprobs: Array,
    reference_logprobs: Array,
    win_rates: Array,
    *,
    beta: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = sequence_sum,
) -> Array:
    r"""Nash-MD-PG: the policy gradient of preferences over a mixture of the policy and the reference.

    .. math:: \ell_t = \left(\beta\,\overline{\log\tfrac{\pi(y_t)}{\pi_{ref}(y_t)}} - \left(P(y \succ y_{mix})
       - \tfrac12\right)\right) \log\pi(y_t)

    Responses are sampled from the policy, :math:`y_{mix}` from :math:`\pi^{1-c}\pi_{ref}^{c}` (normalised token by
    token, c = 0.5 in TRL). The overline is a stop-gradient: each token is weighted by its own log-ratio, which is not
    the gradient of the KL of sequences.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities (nats) of responses of the policy.
      reference_logprobs: ``[..., K, T]`` the same under the reference policy; a constant.
      win_rates: ``[..., K]`` probability that a response beats one of the mixture.
      beta: strength of the KL regularisation.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number (:mod:`rlx.aggregate`); None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{nash_md(jnp.array([[-1.0, -2.0]]), jnp.zeros((1, 2)), jnp.array([1.0])):.2f}")
    2.00

    References:
      Munos et al., *Nash Learning from Human Feedback*, arXiv:2312.00886.
    """
    check_shapes(logprobs=logprobs, reference_logprobs=reference_logprobs, where=where)
    check_shapes(**{"logprobs without their last axis": logprobs[..., 0], "win_rates": win_rates})
    penalty = beta * log_ratio(jax.lax.stop_gradient(logprobs), reference_logprobs)
    factor = penalty - jax.lax.stop_gradient(numerics.accumulate(win_rates) - 0.5)[..., None]
    return aggregate.finish(numerics.clean(factor, where) * numerics.clean(logprobs, where), where, reduce)


def nash_md_pg_tabular(
    policy_logps: Array,
    reference_logps: Array,
    preferences: Array,
    *,
    beta: float = 0.1,
    mixture_coef: float = 0.5,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Nash-MD-PG over all actions, in expectation.

    .. math:: \ell = -\sum_y \bar\pi(y) \left(P(y \succ \pi_c) - \beta\,\overline{\log\tfrac{\pi(y)}{\pi_{ref}(y)}}
       \right) \log\pi(y),\quad \pi_c \propto \pi^{1-c}\,\pi_{ref}^{c}

    Bars are stop-gradients, and so is the opponent.

    Args:
      policy_logps: ``[..., K]`` log-probabilities or logits of all actions.
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      preferences: ``[..., K, K]`` probability that action i beats action j.
      beta: strength of the KL regularisation.
      mixture_coef: c, share of the reference in the opponent; the official code takes 2 a / K at learning rate a.
      where: ``[..., K]`` real actions.
      reduce: how games become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> policy, preferences = jnp.log(jnp.array([0.5, 0.5])), jnp.array([[0.5, 0.9], [0.1, 0.5]])
    >>> print(f"{nash_md_pg_tabular(policy, policy, preferences):.4f}")
    0.3466

    References:
      Munos et al., *Nash Learning from Human Feedback*, arXiv:2312.00886; as in Zhou et al., *Extragradient
      Preference Optimization*, arXiv:2503.08942.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    opponent = win_rate.mixture(policy_logps, reference_logps, mixture_coef)
    logs = win_rate.log_policy(policy_logps, where=where)
    ahead = logs - win_rate.log_policy(reference_logps, where=where)
    payoff = jax.lax.stop_gradient(win_rate.against(preferences, opponent, where=where) - beta * ahead)
    policy = jax.lax.stop_gradient(numerics.softmax(policy_logps, where=where))
    return aggregate.finish(-numerics.sum(policy * payoff * logs, -1, where=where), compare.list_where(where), reduce)


def xpo(
    policy_logps: Array,
    reference_logps: Array,
    preference_probs: Array,
    *,
    alpha: float = 1e-5,
    beta: float = 0.1,
    link: Link = links.logistic,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Exploratory preference optimisation: DPO on a response of the policy and one of the reference, with optimism.

    .. math:: \ell = q\,f(\beta m) + (1-q)\,f(-\beta m) + \alpha \log\pi(y_{ref}),\quad
       m = \log\frac{\pi(y)\,\pi_{ref}(y_{ref})}{\pi_{ref}(y)\,\pi(y_{ref})}

    Unlike elsewhere the order of a pair does not tell its winner: the response of the policy comes first, that of the
    reference second, and q says how probably the first is better (1 or 0 for a hard verdict).

    Args:
      policy_logps: ``[..., 2]`` summed log-probabilities (nats) of the response of the policy, then of the reference.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      preference_probs: ``[...]`` probability q that the response of the policy is better.
      alpha: strength of the optimism.
      beta: strength of the KL regularisation.
      link: loss f of a margin (:mod:`rlx.preference.links`).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{xpo(jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0]), jnp.array(1.0), alpha=0.1, beta=1.0):.4f}")
    0.1133

    References:
      Xie et al., *Exploratory Preference Optimization*, arXiv:2405.21046.
    """
    there, label = compare.pair_where(where), labels.soft(numerics.accumulate(preference_probs))
    units = pairwise.dpo(policy_logps, reference_logps, beta=beta, label=label, link=link, where=where, reduce=None)
    optimism = alpha * numerics.clean(numerics.accumulate(policy_logps[..., 1]), there)
    return aggregate.finish(units + optimism, there, reduce)

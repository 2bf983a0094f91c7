"""Nash losses against the policy's own play: win rates of responses ``[..., K]``, or preferences ``[..., K, K]``.

``where [..., K]`` marks real responses; ``reduce=None`` gives one value per example ``[...]``, 0 where masked.
"""

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.aggregate import mean
from rlx.game import regression, win_rate
from rlx.preference.scores import log_ratio
from rlx.types import Array, Reduce, check_positive, check_shapes


def gpo_general_preference(
    policy_logps: Array,
    reference_logps: Array,
    scores: Array,
    *,
    beta: float = 0.001,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""General preference optimisation: regression of log-ratios on scores of a general preference model.

    .. math:: \ell = \frac12 \sum_k \left(\log\frac{\pi(y_k)}{\pi_t(y_k)} - \frac{s_k}{\beta}\right)^2

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats); two of them in the paper.
      reference_logps: ``[..., K]`` the same under the policy of the last iteration; a constant.
      scores: ``[..., K]`` mean preference score of a response against the samples of :math:`\pi_t`, 0 for a tie.
      beta: inverse step size, above 0.
      where: ``[..., K]`` real responses.
      reduce: how examples become one number; None gives ``[...]``.

    Raises:
      UserError: beta is not above 0, or the shapes disagree.

    >>> print(gpo_general_preference(jnp.array([-1.0, -2.0]), jnp.zeros(2), jnp.array([1.0, -1.0]), beta=1.0))
    2.5

    References:
      Zhang et al., *Beyond Bradley-Terry Models: A General Preference Model*, arXiv:2410.02197.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, scores=scores, where=where)
    check_positive(beta=beta)
    target = numerics.accumulate(scores) / beta
    return regression.each(log_ratio(policy_logps, reference_logps), target, where, reduce)


def sppo(
    policy_logps: Array,
    reference_logps: Array,
    win_rates: Array,
    *,
    beta: float = 0.001,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Self-play preference optimisation: a step of multiplicative weights, as a regression.

    .. math:: \ell = \frac12 \sum_k \left(\log\frac{\pi(y_k)}{\pi_t(y_k)} - \frac{p_k - 1/2}{\beta}\right)^2

    The official ``sppo_single`` takes ``win_rates`` (p, 1 - p) from one probability of a pair.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats); two of them in the paper.
      reference_logps: ``[..., K]`` the same under the policy of the last iteration; a constant.
      win_rates: ``[..., K]`` probability that a response beats one of :math:`\pi_t`
        (:func:`rlx.game.win_rate.sample_win_rates`).
      beta: inverse step size, above 0.
      where: ``[..., K]`` real responses.
      reduce: how examples become one number; None gives ``[...]``.

    Raises:
      UserError: beta is not above 0, or the shapes disagree.

    >>> print(sppo(jnp.array([-1.0, -2.0]), jnp.zeros(2), jnp.array([1.0, 0.0]), beta=0.5))
    2.5

    References:
      Wu et al., *Self-Play Preference Optimization for Language Model Alignment*, arXiv:2405.00675.
    """
    centred = numerics.accumulate(win_rates) - 0.5
    return gpo_general_preference(policy_logps, reference_logps, centred, beta=beta, where=where, reduce=reduce)


def egpo(
    policy_logps: Array,
    reference_logps: Array,
    win_rates: Array,
    *,
    beta: float = 0.1,
    self_pairs: bool = True,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Extragradient preference optimisation: all pairs of responses, and whoever the win rates were measured against.

    .. math:: \ell = \frac{1}{n}\sum_{y,y'} \left(\log\frac{\pi(y)\,\pi_{ref}(y')}{\pi_{ref}(y)\,\pi(y')}
       - \frac{P(y \succ \pi'') - P(y' \succ \pi'')}{\beta}\right)^2

    Measured against the policy itself it is :func:`online_ipo_omd`. The extragradient method takes two steps from the
    same parameters: one with win rates against the policy, then, from where it started, one with win rates against
    the policy that the first step led to. When the responses are all actions, gradient descent on the logits with rate
    a is mirror descent with step size 4 a / (beta K). On two sampled responses without ``self_pairs`` it is the
    paper's loss for language models, each win rate that over one sample of :math:`\pi''`.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats), or logits of all actions.
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      win_rates: ``[..., K]`` probability that a response beats the opponent (:func:`rlx.game.win_rate.against`).
      beta: strength of the KL regularisation, above 0.
      self_pairs: count the K pairs of a response with itself, whose loss is 0, in the mean.
      where: ``[..., K]`` real responses.
      reduce: how examples become one number; None gives ``[...]``.

    Raises:
      UserError: beta is not above 0, or the shapes disagree.

    >>> print(egpo(jnp.array([-1.0, -2.0]), jnp.zeros(2), jnp.array([1.0, 0.0]), beta=0.5, self_pairs=False))
    1.0

    References:
      Zhou et al., *Extragradient Preference Optimization*, arXiv:2503.08942.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, win_rates=win_rates, where=where)
    check_positive(beta=beta)
    # what the policy should be ahead of the reference by is itself a score: no target is left
    score = log_ratio(policy_logps, reference_logps) - jax.lax.stop_gradient(numerics.accumulate(win_rates)) / beta
    weights = regression.uniform_weights(score, where, self_pairs=self_pairs)
    return regression.all_pairs(score, jnp.zeros_like(weights), weights, where, reduce)


def online_ipo_omd(
    policy_logps: Array,
    reference_logps: Array,
    preferences: Array,
    *,
    beta: float = 0.1,
    mixture_coef: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Online IPO in the form of mirror descent, over all actions; with a mixture as opponent it is Nash-MD.

    .. math:: \ell = \frac{1}{K^2}\sum_{y,y'} \left(\log\frac{\pi(y)\,\pi_{ref}(y')}{\pi_{ref}(y)\,\pi(y')}
       - \frac{P(y \succ \pi_c) - P(y' \succ \pi_c)}{\beta}\right)^2,\quad
       \pi_c \propto \pi^{1-c}\,\pi_{ref}^{c}

    The opponent is a constant. See :func:`egpo` for the step that gradient descent takes.

    Args:
      policy_logps: ``[..., K]`` log-probabilities or logits of all actions.
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      preferences: ``[..., K, K]`` probability that action i beats action j.
      beta: strength of the KL regularisation, above 0.
      mixture_coef: c, share of the reference in the opponent; the official code's Nash-MD takes 2 a / K at rate a.
      where: ``[..., K]`` real actions.
      reduce: how games become one number; None gives ``[...]``.

    Raises:
      UserError: beta is not above 0, or the shapes disagree.

    >>> policy, preferences = jnp.log(jnp.array([0.5, 0.5])), jnp.array([[0.5, 0.9], [0.1, 0.5]])
    >>> print(f"{online_ipo_omd(policy, policy, preferences, beta=0.4):.2f}")
    0.50

    References:
      Zhou et al., *Extragradient Preference Optimization*, arXiv:2503.08942;
      Munos et al., *Nash Learning from Human Feedback*, arXiv:2312.00886.
    """
    opponent = win_rate.mixture(policy_logps, reference_logps, mixture_coef)
    won = win_rate.against(preferences, opponent, where=where)
    return egpo(policy_logps, reference_logps, won, beta=beta, where=where, reduce=reduce)


def online_ipo(
    policy_logps: Array,
    reference_logps: Array,
    preferences: Array,
    *,
    beta: float = 0.1,
    sampled: bool = False,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Online IPO: pairs of responses of the policy itself, regressed on their own preference.

    .. math:: \ell = \sum_{y,y'} \bar\pi(y)\,\bar\pi(y') \left(\log\frac{\pi(y)\,\pi_{ref}(y')}{\pi_{ref}(y)\,\pi(y')}
       - \frac{P(y \succ y') - 1/2}{\beta}\right)^2,\quad \bar\pi = \text{stop-gradient of } \pi

    Args:
      policy_logps: ``[..., K]`` log-probabilities or logits of all actions, or of samples of the policy.
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      preferences: ``[..., K, K]`` probability that response i beats response j.
      beta: strength of the KL regularisation, above 0.
      sampled: the responses are samples of the policy, so that all pairs of two of them weigh the same.
      where: ``[..., K]`` real responses.
      reduce: how examples become one number; None gives ``[...]``.

    Raises:
      UserError: beta is not above 0, or the shapes disagree.

    >>> policy, preferences = jnp.log(jnp.array([0.5, 0.5])), jnp.array([[0.5, 0.9], [0.1, 0.5]])
    >>> print(f"{online_ipo(policy, policy, preferences, beta=0.4):.2f}")
    0.50

    References:
      Calandriello et al., *Human Alignment of Large Language Models through Online Preference Optimisation*,
      arXiv:2403.08635; as in Zhou et al., *Extragradient Preference Optimization*, arXiv:2503.08942.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    win_rate.check_preferences(preferences, policy_logps=policy_logps)
    check_positive(beta=beta)
    score, target = log_ratio(policy_logps, reference_logps), (numerics.accumulate(preferences) - 0.5) / beta
    policy = numerics.softmax(policy_logps, where=where)
    exact = policy[..., :, None] * policy[..., None, :]
    weights = regression.uniform_weights(score, where, self_pairs=False) if sampled else exact
    return regression.all_pairs(score, target, weights, where, reduce)

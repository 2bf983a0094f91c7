"""Whether a policy ranks the preferred response higher: on pairs ``[..., 2]``, chosen first."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.preference import compare, links, scores
from rlx.types import Array, check_pairs


class Ranking(NamedTuple):
    """Facts on pairs ``[...]``, each 1 or 0 unless said; 0 where masked. Means over pairs are the paper's rates.

    Attributes:
      correct: the policy finds the chosen response at least as likely.
      reference_correct: so does the reference.
      idealized_correct: so would the exact optimum of DPO on true preference probabilities.
      implicit_correct: the implicit reward of the chosen response is greater, DPO's usual "accuracy": another fact.
      idealized_log_ratio: log-ratio of the two responses under that optimum; infinite for a certain preference.
      dpo_loss: DPO's loss of the pair.
      dpo_loss_threshold: the pair is ranked correctly exactly when the loss is at most this.
    """

    correct: Array
    reference_correct: Array
    idealized_correct: Array
    implicit_correct: Array
    idealized_log_ratio: Array
    dpo_loss: Array
    dpo_loss_threshold: Array


def ranking_accuracy(
    policy_logps: Array,
    reference_logps: Array,
    preference_probs: Array,
    lengths: Array | None = None,
    *,
    beta: float = 0.1,
    length_normalize: bool = False,
    where: Array | None = None,
) -> Ranking:
    r"""Ranking of pairs by a policy, by its reference, and by the ideal policy; constants, one per pair.

    .. math:: \mathcal R = 1[\pi(y_w) \ge \pi(y_l)],\quad
       \mathcal R^* = 1\left[\log\frac{\pi_{ref}(y_w)}{\pi_{ref}(y_l)} + \frac1\beta\log\frac{a}{1-a} \ge 0\right],\quad
       \mathcal R = 1 \iff \ell_{DPO} \le -\log\sigma\left(\beta\log\frac{\pi_{ref}(y_l)}{\pi_{ref}(y_w)}\right)

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy.
      preference_probs: ``[...]`` true probability a that the chosen response is preferred.
      lengths: ``[..., 2]`` response tokens; read by ``length_normalize`` alone.
      beta: of the DPO loss.
      length_normalize: rank by log-probabilities per token; the ideal quantities stay unnormalised.
      where: ``[..., 2]`` real responses.

    Raises:
      UserError: lengths are missing, or the shapes disagree.

    >>> found = ranking_accuracy(jnp.array([-3.0, -2.0]), jnp.array([-5.0, -2.0]), jnp.array(0.9))
    >>> print(found.correct, found.implicit_correct, found.idealized_correct)
    0.0 1.0 1.0

    References:
      Chen et al., *Preference Learning Algorithms Do Not Learn Preference Rankings*, arXiv:2405.19534.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, lengths=lengths, where=where)
    whole, dtype = compare.pair_where(where), numerics.accumulate(policy_logps).dtype
    policy, reference = (jax.lax.stop_gradient(numerics.accumulate(x)) for x in (policy_logps, reference_logps))
    gain = scores.margin(policy - reference)
    apart = scores.margin(reference)
    ideal = apart + jax.scipy.special.logit(numerics.accumulate(preference_probs)) / beta
    if length_normalize:
        if lengths is None:
            raise errors.UserError("ranking_accuracy with length_normalize=True needs lengths: tokens, [..., 2].")
        policy, reference = scores.per_token(policy, lengths), scores.per_token(reference, lengths)
    facts = scores.margin(policy) >= 0, scores.margin(reference) >= 0, ideal >= 0, gain > 0
    numbers = ideal, links.logistic(beta * gain), links.logistic(-beta * apart)
    return Ranking(*(numerics.clean(jnp.asarray(x, dtype), whole) for x in (*facts, *numbers)))

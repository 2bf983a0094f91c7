"""The Bradley-Terry reward model: pairs on the last axis ``[..., 2]``, chosen first."""

from rlx import numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Reduce, check_pairs, check_positive


def bradley_terry_rm(
    rewards: Array,
    *,
    tau: float = 1.0,
    margin: float | Array = 0.0,
    epsilon: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Loss of a scalar reward model on pairs.

    .. math:: \ell = -(1-\epsilon)\log\sigma(z) - \epsilon\log\sigma(-z),\quad z = (r_w - r_l - \text{margin})/\tau

    Args:
      rewards: ``[..., 2]`` reward of the responses, chosen first.
      tau: temperature, above 0 (the General Preference Model's code uses 0.1).
      margin: required difference of the rewards, a number or ``[...]``; Llama 2 has one per strength of preference.
      epsilon: rate of flipped labels, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: tau is not above 0, epsilon is outside [0, 0.5), or the shapes disagree.

    >>> print(f"{bradley_terry_rm(jnp.array([1.0, 0.0])):.4f}")
    0.3133

    References:
      Bai et al., *Training a Helpful and Harmless Assistant*, arXiv:2204.05862; margin: Llama 2, arXiv:2307.09288.
    """
    check_pairs(rewards=rewards, where=where)
    check_positive(tau=tau)
    z = compare.beyond(scores.margin(numerics.accumulate(rewards)), margin) / tau
    return compare.margins(z, labels.smoothed(epsilon), links.logistic, compare.pair_where(where), reduce)

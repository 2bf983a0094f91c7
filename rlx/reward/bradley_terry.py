"""Models of scalar rewards: pairs ``[..., 2]`` (Bradley-Terry) and lists ``[..., K]``, chosen first."""

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Link, Reduce, check_pairs, check_positive, check_shapes


def bradley_terry_rm(
    rewards: Array,
    *,
    tau: float = 1.0,
    margin: float | Array = 0.0,
    epsilon: float = 0.0,
    link: Link = links.logistic,
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
      link: loss of a margin; ``links.regression(10)`` is the regression variant of the General Preference Model's code.
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
    return compare.margins(z, labels.smoothed(epsilon), link, compare.pair_where(where), reduce)


def yojo_nway(scores: Array, *, where: Array | None = None, reduce: Reduce | None = mean) -> Array:
    r"""Loss of a reward model that reads all N responses in one pass: cross-entropy with the preferred one, the first.

    .. math:: \ell = -\log\mathrm{softmax}(s)_1

    Bradley-Terry is N = 2. The order in which the model reads the responses matters to the model, not to the loss.

    Args:
      scores: ``[..., K]`` score of the responses, the preferred one first.
      where: ``[..., K]`` real responses; a list without its preferred response does not count.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{yojo_nway(jnp.zeros(4)):.4f}")
    1.3863

    References:
      *You Only Judge Once: Multi-response Reward Modeling in a Single Forward Pass*, arXiv:2604.10966.
    """
    check_shapes(scores=scores, where=where)
    loss = -numerics.log_softmax(scores, where=where)[..., 0]
    return aggregate.finish(loss, None if where is None else where[..., 0], reduce)

"""Nash losses of pairs against opponents: earlier policies, as constants ``[..., J, 2]``, the latest first.

``where [..., 2]`` marks real responses; ``reduce=None`` gives one value per pair ``[...]``, 0 where masked.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.aggregate import mean
from rlx.game import regression
from rlx.types import Array, Reduce, check_pairs, check_positive


def mnpo(
    policy_logps: Array,
    reference_logps: Array,
    opponent_logps: Array,
    *,
    eta: float = 0.0075,
    ratio: float = 1 / 3,
    weights: Sequence[float] | Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Multiplayer Nash preference optimisation against a population of earlier policies.

    .. math:: \ell = \left(D_\pi - \rho D_{ref} - (1-\rho)\textstyle\sum_j \lambda_j D_j - \frac{1}{2\eta}\right)^2,
       \quad D = \log\frac{\pi(y_w)}{\pi(y_l)}

    The official trainer feeds log-probabilities averaged over tokens, which eta is calibrated for, and keeps at most
    two opponents, the latest first. Without opponents the last sum is 0 and the reference keeps its factor.

    Args:
      policy_logps: ``[..., 2]`` response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      opponent_logps: ``[..., J, 2]`` the same under the opponents, the latest first; constants.
      eta: inverse of twice the target margin, above 0.
      ratio: share :math:`\rho` of the reference; in :func:`inpo` it is :math:`\tau/\eta`.
      weights: :math:`\lambda`, ``[J]`` or more, of which the first J are normalised to sum 1; None: equal ones.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: eta is not above 0, there are more opponents than weights, or the shapes disagree.

    >>> policy, reference, opponents = jnp.array([-1.0, -2.0]), jnp.zeros(2), jnp.array([[-1.0, -2.0], [-1.0, -1.0]])
    >>> print(f"{mnpo(policy, reference, opponents, eta=0.5, ratio=0.5):.4f}")
    0.0625

    References:
      Wu et al., *Multiplayer Nash Preference Optimization*, arXiv:2509.23102.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    check_opponents(policy_logps, opponent_logps)
    check_positive(eta=eta)
    opponents = weighted_opponents(numerics.accumulate(opponent_logps), weights)
    anchor = ratio * numerics.accumulate(reference_logps) + (1 - ratio) * opponents
    return regression.pair(policy_logps, anchor, 1 / (2 * eta), where, reduce)


def weighted_opponents(opponent_logps: Array, weights: Sequence[float] | Array | None) -> Array:
    r""":math:`\sum_j \lambda_j \log\pi_j`, ``[..., J, K] -> [..., K]``, 0 without opponents.

    The first J weights are normalised to sum 1; weights whose sum is not above 0 are replaced by equal ones.

    >>> print(weighted_opponents(jnp.array([[-1.0, -2.0], [-3.0, -4.0]]), [3.0, 1.0, 5.0]))
    [-1.5 -2.5]
    """
    count = opponent_logps.shape[-2]
    weights = jnp.ones(count) if weights is None else jnp.asarray(weights, jnp.result_type(float))
    if weights.shape[-1] < count:
        raise errors.UserError(f"weights has {weights.shape[-1]} entries for {count} opponents: give one for each.")
    weights = weights[..., :count]
    total = weights.sum(-1, keepdims=True)
    shares = jnp.where(total > 0, numerics.safe_divide(weights, total), 1 / max(count, 1))
    # an opponent without weight stays out, even where its log-probability is -inf
    return numerics.sum(shares[..., None] * opponent_logps, -2, where=shares[..., None] != 0)


def check_opponents(policy_logps: Array, opponent_logps: Array) -> None:
    """Raises a UserError unless opponents are ``[..., J, K]`` for a policy ``[..., K]``."""
    policy, opponents = jnp.shape(policy_logps), jnp.shape(opponent_logps)
    if opponents[:-2] + opponents[-1:] != policy or len(opponents) < 2:
        raise errors.UserError(
            f"opponent_logps has shape {opponents}, but policy_logps has shape {policy}: opponents stand on an axis of "
            "their own before the candidates, [..., J, K]."
        )


def inpo(
    policy_logps: Array,
    reference_logps: Array,
    opponent_logps: Array,
    *,
    eta: float = 0.0075,
    tau: float = 0.0025,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Iterative Nash policy optimisation: a mirror-descent step against the last policy, as a regression.

    .. math:: \ell = \left(D_\pi - \frac{\tau}{\eta} D_{ref} - \frac{\eta-\tau}{\eta} D_{\pi_t} - \frac{1}{2\eta}
       \right)^2,\quad D = \log\frac{\pi(y_w)}{\pi(y_l)}

    Pairs are sampled from :math:`\pi_t` and ordered by the preference oracle, at random with its probability; eta is
    the inverse of the step size. It is :func:`mnpo` with one opponent.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      opponent_logps: ``[..., 1, 2]`` the same under the policy :math:`\pi_t` of the last iteration; a constant.
      eta: inverse step size, above 0.
      tau: strength of the KL regularisation, from 0 to eta.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: eta is not above 0, or the shapes disagree.

    >>> policy, last = jnp.array([-1.0, -2.0]), jnp.array([[-1.0, -2.0]])
    >>> print(f"{inpo(policy, jnp.zeros(2), last, eta=0.5, tau=0.25):.4f}")
    0.2500

    References:
      Zhang et al., *Iterative Nash Policy Optimization*, arXiv:2407.00617.
    """
    check_positive(eta=eta)
    return mnpo(policy_logps, reference_logps, opponent_logps, eta=eta, ratio=tau / eta, where=where, reduce=reduce)


def onpo(
    policy_logps: Array,
    opponent_logps: Array,
    *,
    eta: float = 0.5,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Optimistic Nash policy optimisation: two regressions an iteration on the same data, none on a reference.

    .. math:: \ell = \left(D_\pi - D_{\pi'} - \frac{\eta}{2}\right)^2,\quad D = \log\frac{\pi(y_w)}{\pi(y_l)}

    With pairs sampled from :math:`\pi_t`, first train :math:`\pi'_{t+1}` with the opponent :math:`\pi'_t`, then
    :math:`\pi_{t+1}` with the opponent :math:`\pi'_{t+1}`; both start at the same policy. Here eta is the step size.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      opponent_logps: ``[..., 1, 2]`` the same under the auxiliary policy :math:`\pi'`; a constant.
      eta: step size, above 0; the theory wants at most 1/2.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: eta is not above 0, or the shapes disagree.

    >>> print(f"{onpo(jnp.array([-1.0, -2.0]), jnp.array([[-1.0, -1.0]]), eta=1.0):.4f}")
    0.2500

    References:
      Zhang et al., *Improving LLM General Preference Alignment via Optimistic Online Mirror Descent*, arXiv:2502.16852.
    """
    check_positive(eta=eta)
    return mnpo(
        policy_logps, jnp.zeros_like(policy_logps), opponent_logps, eta=1 / eta, ratio=0.0, where=where, reduce=reduce
    )

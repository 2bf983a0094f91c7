"""Corrections for a sampler that is not the policy which is trained: weights and selections of what it sampled.

Tokens stand on the last axis ``[..., K, T]``; leading axes are the batch. The engine that samples rounds differently
from the one that trains, or lags some steps behind: ``rollout_logprobs`` are what it recorded, ``old_logprobs`` what
the training engine finds for the weights before the update. Everything here is a constant.
"""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.policy import ratios
from rlx.policy.weights import constant
from rlx.types import Array, check_positive, check_shapes

Bounds = float | tuple[float, float]

_LEVELS = ("token", "sequence")


def truncated_importance_sampling(
    old_logprobs: Array,
    rollout_logprobs: Array,
    *,
    level: str = "token",
    threshold: float = 2.0,
    batch_normalize: bool = False,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Importance weights of the training policy over the sampler, truncated above.

    .. math:: w = \min\left(\exp(\mathrm{clamp}(d, \pm 20)),\; C\right),\quad
       d = \log\pi_{train}(y_t) - \log\pi_{rollout}(y_t)\ \text{or its sum over the response}

    Args:
      old_logprobs: ``[..., K, T]`` token log-probabilities under the training engine (nats).
      rollout_logprobs: ``[..., K, T]`` the same as the sampler recorded them.
      level: ``token``, or ``sequence``: the ratio of the whole response, at each of its tokens.
      threshold: C. There is no lower bound.
      batch_normalize: divide by the mean weight: of the tokens, or of the responses.
      where: ``[..., K, T]`` response tokens.
      axis_name: mapped axes that mean is global over.

    Returns:
      ``[..., K, T]`` weights of a loss, 0 where masked.

    Raises:
      UserError: unknown ``level``, ``threshold`` is not above 0, or the shapes disagree.

    >>> print(truncated_importance_sampling(jnp.array([-1.0, -2.0]), jnp.array([-2.0, -2.0])))
    [2. 1.]

    References:
      Yao et al., *Your Efficient RL Framework Secretly Brings You Off-Policy RL Training*, 2025,
      https://fengyao.notion.site/off-policy-rl.
    """
    check_shapes(old_logprobs=old_logprobs, rollout_logprobs=rollout_logprobs, where=where)
    check_positive(threshold=threshold)
    if level not in _LEVELS:
        raise errors.UserError(
            f"level must be 'token' or 'sequence', got {level!r}.{errors.close_matches(level, _LEVELS)}"
        )
    arrays = constant(old_logprobs, where), constant(rollout_logprobs, where)
    if level == "token":
        ratio, reduction = ratios.token(*arrays, where=where), aggregate.token_mean
    else:
        low, high = -ratios.CLAMP, ratios.CLAMP
        ratio = ratios.sequence_sum(*arrays, bound=math.inf, minimum=low, maximum=high, where=where)
        reduction = aggregate.sequence_mean
    weights = numerics.clean(jnp.minimum(ratio, threshold), where)
    if not batch_normalize:
        return weights
    return numerics.safe_divide(weights, numerics.psum(reduction.over(axis_name)(weights, where), axis_name))


STATISTICS: dict[str, Callable[[Array], Array]] = {
    "k1": lambda d: -d,
    "k2": lambda d: jnp.square(d) / 2,
    "k3": lambda d: jnp.expm1(d) - d,
}
"""Of d = log pi_train - log pi_rollout: estimators of KL(rollout || train) at tokens of the sampler."""


def _maximum(statistic: Array, where: Array | None) -> Array:
    largest = numerics.clean(statistic, where, -jnp.inf).max(-1, keepdims=True)
    return jnp.where(jnp.isneginf(largest), 0, largest)


LEVELS: dict[str, Callable[[Array, Array | None], Array]] = {
    "token": lambda statistic, where: statistic,
    "seq_sum": lambda statistic, where: numerics.sum(statistic, -1, where=where, keepdims=True),
    "seq_mean": lambda statistic, where: numerics.mean(statistic, -1, where=where, keepdims=True),
    "seq_max": _maximum,
}
"""What a bound is on: the statistic of a token, or of a response (then it is dropped as a whole)."""


def rollout_rejection_sampling(
    old_logprobs: Array,
    rollout_logprobs: Array,
    *,
    criteria: Mapping[str, Bounds] | None = None,
    where: Array | None = None,
) -> Array:
    r"""Hard trust region: the tokens, or responses, whose sampler is close enough to the training policy.

    .. math:: k_1 = -d,\quad k_2 = d^2/2,\quad k_3 = e^d - 1 - d,\quad
       d = \mathrm{clamp}(\log\pi_{train} - \log\pi_{rollout}, \pm 20)

    Args:
      old_logprobs: ``[..., K, T]`` token log-probabilities under the training engine (nats).
      rollout_logprobs: ``[..., K, T]`` the same as the sampler recorded them.
      criteria: ``{"<level>_<statistic>": bounds}``, all of which must hold; levels ``token``, ``seq_sum``,
        ``seq_mean``, ``seq_max``. k2 and k3 have an upper bound. k1 has (lower, upper) bounds on the ratio
        *pi_rollout / pi_train*, its sum or mean in log space; one number u means (1/u, u). Bounds are inclusive.
        None: ``{"token_k1": 2.0}``.
      where: ``[..., K, T]`` response tokens.

    Returns:
      ``[..., K, T]`` bool: what is kept, False where masked.

    Raises:
      UserError: unknown criterion, bounds that it cannot have, or the shapes disagree.

    >>> criteria = {"token_k1": (0.5, 2.0), "seq_max_k2": 1.0}
    >>> print(rollout_rejection_sampling(jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0]), criteria=criteria))
    [ True False]

    References:
      The ``rollout_rs`` options of verl; *truncated importance sampling* drops nothing, this drops all.
    """
    check_shapes(old_logprobs=old_logprobs, rollout_logprobs=rollout_logprobs, where=where)
    arrays = constant(old_logprobs, where), constant(rollout_logprobs, where)
    d = jnp.clip(ratios.log_ratio(*arrays, where=where), -ratios.CLAMP, ratios.CLAMP)
    kept = jnp.ones(d.shape, bool) if where is None else jnp.broadcast_to(where, d.shape)
    for criterion, bounds in ({"token_k1": 2.0} if criteria is None else criteria).items():
        level, statistic = read_criterion(criterion)
        lower, upper = read_bounds(criterion, statistic, bounds)
        found = LEVELS[level](STATISTICS[statistic](d), where)
        kept = kept & (found >= lower) & (found <= upper)
    return kept


def read_criterion(criterion: str) -> tuple[str, str]:
    """Level and statistic of a criterion; a UserError with close matches for an unknown one.

    >>> read_criterion("seq_mean_k3")
    ('seq_mean', 'k3')
    """
    level, _, statistic = criterion.rpartition("_")
    if level not in LEVELS or statistic not in STATISTICS:
        known = [f"{a}_{b}" for a in LEVELS for b in STATISTICS]
        hint = errors.close_matches(criterion, known)
        raise errors.UserError(f"Unknown criterion {criterion!r}.{hint} Known: {', '.join(known)}.")
    return level, statistic


def read_bounds(criterion: str, statistic: str, bounds: Bounds) -> tuple[float, float]:
    """Lower and upper bound of the statistic itself, ``log`` of the ratio's for k1."""
    pair = tuple(bounds) if isinstance(bounds, (tuple, list)) else (bounds,)
    if statistic != "k1":
        if len(pair) != 1:
            raise errors.UserError(f"{criterion} has an upper bound, one number; got {bounds}.")
        return -math.inf, float(pair[0])
    lower, upper = pair if len(pair) == 2 else (1 / pair[0] if pair[0] else 0, pair[0])
    if not 0 < lower <= upper:
        raise errors.UserError(f"{criterion} bounds a ratio: (lower, upper), or a number from 1 on; got {bounds}.")
    return math.log(lower), math.log(upper)


def off_policy_sequence_mask(
    logprobs: Array,
    rollout_logprobs: Array,
    advantages: Array,
    *,
    delta: float = 0.1,
    where: Array | None = None,
) -> Array:
    r"""Drops responses that are worse than their group and that the policy has already moved away from.

    .. math:: m = \mathbb 1\left[A \ge 0\ \text{or}\
       \frac1n\sum_t \log\frac{\pi_{rollout}(y_t)}{\pi(y_t)} \le \delta\right]

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      rollout_logprobs: ``[..., K, T]`` the same as the sampler recorded them.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``.
      delta: largest mean log-ratio (nats per token). The paper states none; 0.1 is ours.
      where: ``[..., K, T]`` response tokens.

    Returns:
      ``[..., K, T]`` bool: what is kept, True where masked. It selects from the policy term alone, not from a KL.

    Raises:
      UserError: the shapes disagree.

    >>> arrays = jnp.array([[-2.0], [-2.0]]), jnp.array([[-1.0], [-1.0]]), jnp.array([[1.0], [-1.0]])
    >>> print(off_policy_sequence_mask(*arrays)[:, 0])
    [ True False]

    References:
      DeepSeek-AI, *DeepSeek-V3.2*, arXiv:2512.02556.
    """
    check_shapes(logprobs=logprobs, rollout_logprobs=rollout_logprobs, advantages=advantages, where=where)
    moved = -ratios.log_ratio(constant(logprobs, where), rollout_logprobs, where=where)
    close = numerics.mean(moved, -1, where=where, keepdims=True) <= delta
    return jnp.broadcast_to(close | (constant(advantages, where) >= 0), moved.shape)

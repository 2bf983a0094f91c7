"""Which responses and tokens of a batch are trained on: boolean selections, exact and global over shards.

Responses to a prompt stand on the axis K, tokens on the last axis; leading axes are the batch. Selections are
constants.
"""

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy import select
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def dapo_dynamic_sampling(rewards: Array, *, singleton: bool = True, where: Array | None = None) -> Array:
    r"""DAPO's filter: keeps the groups whose rewards differ, the others have no advantage.

    .. math:: m = \mathbb 1[\max_j r_j > \min_j r_j],\quad\text{for 0/1 rewards}\quad 0 < \#\text{right} < G

    Args:
      rewards: ``[..., K]`` rewards, or verdicts, of the responses to a prompt.
      singleton: keep a response without a group (verl); the paper's rule drops it.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]`` bool: broadcasts over the tokens; False where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(dapo_dynamic_sampling(jnp.array([[1.0, 0.0], [1.0, 1.0]]))[..., 0])
    [[ True  True]
     [False False]]

    References:
      Yu et al., *DAPO: An Open-Source LLM Reinforcement Learning System at Scale*, arXiv:2503.14476.
    """
    check_shapes(rewards=rewards, where=where)
    rewards = constant(rewards)
    real = jnp.ones(rewards.shape, bool) if where is None else where
    highest = numerics.clean(rewards, real, -jnp.inf).max(-1, keepdims=True)
    differ = highest > numerics.clean(rewards, real, jnp.inf).min(-1, keepdims=True)
    alone = real.sum(-1, keepdims=True) == 1
    return (real & (differ | alone if singleton else differ))[..., None]


def max_variance_rows(
    advantages: Array,
    num_samples: int | None = None,
    *,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """The N responses of the batch whose advantages have the largest variance: the largest and the smallest ones.

    Args:
      advantages: ``[..., K]``.
      num_samples: N; all where there are fewer. None: half of them.
      where: ``[..., K]`` real responses.
      axis_name: mapped axes the batch is spread over.

    Returns:
      ``[..., K]`` bool. Of equal advantages those that come first are taken.

    Raises:
      UserError: ``num_samples`` is below 1.

    >>> print(max_variance_rows(jnp.array([3.0, 0.0, 2.0, -4.0, 1.0]), 2))
    [ True False False  True False]
    """
    if num_samples is not None and num_samples < 1:
        raise errors.UserError(f"num_samples is how many responses are kept and must be at least 1, got {num_samples}.")
    real = jnp.ones(advantages.shape, bool) if where is None else jnp.broadcast_to(where, advantages.shape)
    values = constant(advantages, real)
    # sums of squares around the mean of all lose nothing to a common offset
    values = numerics.clean(values - numerics.mean(values, where=real, axis_name=axis_name), real)
    everything, selected = (numerics.gather(x.ravel(), axis_name) for x in (values, real))
    count = selected.sum()
    size = jnp.minimum(jnp.maximum(count // 2, 1) if num_samples is None else num_samples, count)
    ordered = jnp.sort(jnp.where(selected, everything, -jnp.inf))[::-1]
    ordered = numerics.clean(ordered, jnp.arange(ordered.size) < count)
    first, second = (jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(x)]) for x in (ordered, ordered**2))
    top = jnp.arange(ordered.size + 1)
    rest = jnp.clip(count - (size - top), 0, ordered.size)
    total, squares = (x[top] + x[count] - x[rest] for x in (first, second))
    spread = numerics.safe_divide(squares - numerics.safe_divide(total**2, size), size)
    best = jnp.argmax(jnp.where(top <= size, spread, -jnp.inf))
    above = numerics.top_k_mask(values, best, where=real, axis_name=axis_name)
    return above | numerics.top_k_mask(-values, size - best, where=real & ~above, axis_name=axis_name)


def d3s(
    entropy: Array,
    advantages: Array,
    *,
    num_samples: int | None = None,
    token_fraction: float = 0.2,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""D3S: the responses with the largest variance of advantages, and of their tokens those that weigh most.

    .. math:: S = \arg\max_{|S| = N} \mathrm{Var}(A_S),\qquad
       m_{it} = \mathbb 1\left[|A_i| H_{it}\ \text{among the largest}\ \lfloor k\,n_S \rfloor\ \text{of}\ S\right]

    Args:
      entropy: ``[..., K, T]`` token entropies (nats).
      advantages: ``[..., K, 1]``, or ``[..., K, T]`` of which a response has the mean; normalised within groups before.
      num_samples: N responses of the whole batch; None: half of them. The paper grows it over training
        (:func:`linear`); it states no numbers.
      token_fraction: k, at least one token.
      where: ``[..., K, T]`` response tokens.
      axis_name: mapped axes the batch is spread over.

    Returns:
      ``[..., K, T]`` bool: the tokens that have a loss.

    Raises:
      UserError: ``num_samples`` is below 1, ``token_fraction`` outside (0, 1], or the shapes disagree.

    >>> entropy, advantages = jnp.array([[1.0, 2.0], [9.0, 9.0], [3.0, 1.0]]), jnp.array([[1.0], [0.1], [-1.0]])
    >>> print(d3s(entropy, advantages, num_samples=2, token_fraction=0.5))
    [[False  True]
     [False False]
     [ True False]]

    References:
      *Learning More with Less: A Dynamic Dual-Level Down-Sampling Framework for Efficient Policy Optimization*,
      arXiv:2509.22115.
    """
    check_shapes(entropy=entropy, advantages=advantages, where=where)
    valid = jnp.ones(entropy.shape, bool) if where is None else where
    row = numerics.mean(jnp.broadcast_to(constant(advantages), entropy.shape), -1, where=valid)
    kept = valid & max_variance_rows(row, num_samples, where=valid.any(-1), axis_name=axis_name)[..., None]
    score = jnp.abs(row)[..., None] * constant(entropy, valid)
    count = select.requested(token_fraction, score, where=kept, axis_name=axis_name)
    return numerics.top_k_mask(score, count, where=kept, axis_name=axis_name)


def linear(progress: float, start: float, end: float) -> float:
    """``start + progress (end - start)``: D3S's schedule of N and k over training, from few to many.

    >>> linear(0.25, 2, 8)
    3.5
    """
    return start + progress * (end - start)

"""Self-refinement of preference labels (SPA): pairs that an extrapolated policy doubts get a smoothed label.

Logits ``[..., 2, T, V]``, chosen first; a unit is a pair. ``where [..., 2, T]`` marks response tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.aggregate import mean
from rlx.method import Constants, Method, PyTree, Shapes, stateless, take
from rlx.preference import labels, links, scores, token_scores
from rlx.signals import HistoryState, Signal, history
from rlx.types import Array, Batch, Reduce

STORED = 50
"""Latest margins that are kept: the threshold is a quantile of them, and waits for as many."""


def extrapolate(policy_logits: Array, reference_logits: Array, mix: float | Array) -> Array:
    r"""Logits from the reference past the policy, :math:`\mu h_\pi + (1-\mu) h_{ref}`, a constant.

    Tokens that one of the two rules out (logit -inf) stay ruled out.

    >>> print(extrapolate(jnp.array([2.0, 1.0]), jnp.array([1.0, -jnp.inf]), 1.5))
    [ 2.5 -inf]
    """
    policy, reference = numerics.accumulate(policy_logits), numerics.accumulate(reference_logits)
    possible = ~(jnp.isneginf(policy) | jnp.isneginf(reference))
    policy, reference = numerics.clean(policy, possible), numerics.clean(reference, possible)
    return jax.lax.stop_gradient(jnp.where(possible, mix * policy + (1 - mix) * reference, -jnp.inf))


def extrapolated_margin(
    policy_logits: Array,
    reference_logits: Array,
    tokens: Array,
    *,
    mix: float | Array = 1.0,
    where: Array | None = None,
) -> Array:
    """Log-ratio margin of the extrapolated policy to the reference, ``[...]``, a constant (:func:`extrapolate`)."""
    mixed = extrapolate(policy_logits, reference_logits, mix)
    found = token_scores.distributions(mixed, reference_logits, tokens, where=where)
    d = numerics.sum(found.logprobs - found.reference_logprobs, -1, where=where)
    return jax.lax.stop_gradient(scores.margin(d))


def refined_label(
    mixed_margin: Array,
    threshold: float | Array,
    *,
    alpha: float = 0.1,
    progress: float | Array = 1.0,
    warmup: float = 0.2,
) -> Array:
    r"""Label q of a pair: 1 where the margin is above the threshold, else :math:`1 - \alpha`; 1 during the warm-up.

    >>> print(refined_label(jnp.array([2.0, 1.0]), 1.0))
    [1.  0.9]
    """
    trusted = jax.lax.stop_gradient(mixed_margin) > threshold
    return jnp.where(trusted | (progress < warmup), 1.0, 1 - alpha)


def spa_self_refinement(
    policy_logits: Array,
    reference_logits: Array,
    tokens: Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.1,
    mix: float = 1.0,
    threshold: float | Array = 0.0,
    progress: float | Array = 1.0,
    warmup: float = 0.2,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DPO on self-annotated pairs, whose label is smoothed where an extrapolated policy does not confirm it.

    .. math:: \ell = -(1-\epsilon)\log\sigma(\beta m) - \epsilon\log\sigma(-\beta m),\quad
       \epsilon = \alpha\,[\beta\tilde m \le \tau]

    where the margin :math:`\tilde m` is that of logits :math:`\mu h_\pi + (1-\mu) h_{ref}`.
    :func:`spa_method` keeps the threshold :math:`\tau`.

    Args:
      policy_logits: ``[..., 2, T, V]`` logits, chosen first; position t predicts ``tokens[..., t]``.
      reference_logits: ``[..., 2, T, V]`` the same under the reference policy; a constant.
      tokens: ``[..., 2, T]`` int response tokens.
      beta: strength of the KL regularisation.
      alpha: label smoothing of pairs that are not trusted, in [0, 0.5).
      mix: how far :math:`\mu` to extrapolate: 1 is the policy, above 1 is beyond it.
      threshold: :math:`\tau`, which the extrapolated reward margin must exceed.
      progress: share of the training that is done.
      warmup: share of the training without smoothing.
      where: ``[..., 2, T]`` response tokens.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: alpha is outside [0, 0.5), the shapes disagree, or there are not two candidates.

    >>> logits, tokens = jnp.zeros((2, 3, 5)), jnp.zeros((2, 3), int)
    >>> print(f"{spa_self_refinement(logits, logits, tokens):.4f}")
    0.6931

    References:
      Kim et al., *Spread Preference Annotation: Direct Preference Judgment for Efficient LLM Alignment*,
      arXiv:2406.04412.
    """
    token_scores.check_token_pairs("spa_self_refinement", tokens=tokens)
    labels.flip_rate(alpha)
    mixed = extrapolated_margin(policy_logits, reference_logits, tokens, mix=mix, where=where)
    label = refined_label(beta * mixed, threshold, alpha=alpha, progress=progress, warmup=warmup)
    found = token_scores.distributions(policy_logits, reference_logits, tokens, where=where)
    score = beta * numerics.sum(found.logprobs - found.reference_logprobs, -1, where=where)
    return token_scores.compare_responses(score, label, links.logistic, where, reduce)


def trust_threshold(quantile: float = 0.1) -> Signal:
    r"""The margin below which pairs are doubted: a quantile of the mean margins of the last 50 batches.

    The output is the midpoint of the order statistics :math:`\lfloor 50 q \rfloor` and the next one (from 0) of the
    stored means; 0 until there are 50. A mean is used from the step after its own on.

    >>> signal = trust_threshold()
    >>> state = signal.init()
    >>> for value in range(50):
    ...     threshold, state = signal.update(jnp.float32(value), state)
    >>> print(threshold, signal.update(jnp.float32(0.0), state)[0])
    0.0 5.5
    """
    if not 0 <= quantile < 1 - 1 / STORED:
        raise errors.UserError(f"quantile must be in [0, {1 - 1 / STORED}), got {quantile}.")
    low = int(STORED * quantile)
    latest = history(STORED)

    def update(value: Array, state: HistoryState) -> tuple[Array, HistoryState]:
        ordered = jnp.sort(state.values)
        threshold = jnp.where(state.count >= STORED, (ordered[low] + ordered[low + 1]) / 2, 0)
        return threshold, latest.update(value, state)[1]

    return Signal(latest.init, update)


def spa_method(
    *,
    beta: float = 0.1,
    alpha: float = 0.1,
    mix: float = 1.0,
    quantile: float = 0.1,
    total_steps: int | None = None,
    warmup: float = 0.2,
    axis_name: numerics.AxisName = None,
) -> Method:
    """SPA with its state: the margins of past batches, which the threshold is a quantile of, and a count of steps.

    Args:
      beta: strength of the KL regularisation.
      alpha: label smoothing of pairs that are not trusted.
      mix: how far to extrapolate from the reference past the policy.
      quantile: of the stored margins, below which pairs are not trusted.
      total_steps: length of the training, for the warm-up; None leaves the warm-up out.
      warmup: share of the training without smoothing.
      axis_name: mapped axes the batch is spread over.

    Raises:
      UserError: quantile or alpha is out of range.

    >>> spa_method(total_steps=100).needs
    ('policy_logits', 'reference_logits', 'tokens')
    """
    signal = trust_threshold(quantile)
    keywords: dict[str, Any] = {"beta": beta, "alpha": labels.flip_rate(alpha), "mix": mix, "warmup": warmup}
    lifted = stateless(spa_self_refinement, keywords=keywords, coupling="batch", axis_name=axis_name)

    def init(key: Array, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return {}, {"margins": signal.init(), "step": jnp.zeros((), jnp.int32)}

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        where = batch.get("where")
        arrays = (take(batch, name, lifted.name) for name in lifted.needs)
        margins = beta * extrapolated_margin(*arrays, mix=mix, where=where)
        valid = token_scores.pair_where(where)
        finite = jnp.isfinite(margins) if valid is None else jnp.isfinite(margins) & valid
        average = numerics.mean(margins, where=finite, axis_name=axis_name)
        threshold, stored = signal.update(average, state["margins"])
        progress = 1.0 if total_steps is None else state["step"] / total_steps
        shared = {"threshold": threshold, "progress": jnp.asarray(progress, threshold.dtype)}
        return Constants(shared, {}), {"margins": stored, "step": state["step"] + 1}

    hyperparameters = keywords | {"quantile": quantile, "total_steps": total_steps}
    return lifted._replace(
        init=init, prepare=prepare, prepare_needs=lifted.needs, splittable=True, hyperparameters=hyperparameters
    )

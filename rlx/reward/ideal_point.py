"""PAL: users differ in their ideal point, a mixture of prototypes; who is nearer to it is preferred.

Items are pairs ``[..., 2, E]``, chosen first; ``where [..., 2]`` marks real responses.
"""

from collections.abc import Callable

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links
from rlx.reward import embedding
from rlx.types import Array, Link, Reduce, check_pairs, check_positive, check_shapes

Project = Callable[[Array], Array]

LEARNERS: dict[str, Callable[[Array, Array, Project], Array]] = {
    "Pw": lambda weights, prototypes, f: mix(weights, prototypes),
    "f(P)w": lambda weights, prototypes, f: mix(weights, f(prototypes)),
    "f(Pw)": lambda weights, prototypes, f: f(mix(weights, prototypes)),
    "|f(P)|w": lambda weights, prototypes, f: mix(weights, embedding.unit(f(prototypes))),
}
"""Where prototypes live: in the space of ideal points (``Pw``), or in that of the items before their projector f."""


def mix(weights: Array, prototypes: Array) -> Array:
    """``[..., P]`` weights of ``[P, E]`` prototypes, or ``[..., P, E]`` of each row -> ``[..., E]``."""
    return (weights[..., None] * prototypes).sum(-2)


def ideal_points(
    user_logits: Array,
    prototypes: Array,
    *,
    temperature: float = 1.0,
    learner: str = "Pw",
    project: Project = lambda x: x,
) -> Array:
    r"""Ideal points of users: :math:`a_u = \mathrm{softmax}(W_u/T)\,P`, or where the learner has it.

    Args:
      user_logits: ``[..., P]`` of the user of each row.
      prototypes: ``[P, E]``, or ``[..., P, E]`` where a row has its own (conditioned on a prompt, say).
      temperature: T, above 0.
      learner: ``Pw``, ``f(P)w``, ``f(Pw)`` or ``|f(P)|w``.
      project: f, from the space of items to that of ideal points.

    Returns:
      ``[..., E]``.

    Raises:
      UserError: unknown learner, or the temperature is not above 0.

    >>> print(ideal_points(jnp.array([0.0, 0.0]), jnp.array([[1.0, 0.0], [0.0, 1.0]])))
    [0.5 0.5]
    """
    check_positive(temperature=temperature)
    if learner not in LEARNERS:
        hint = errors.close_matches(learner, LEARNERS)
        raise errors.UserError(f"learner must be one of {', '.join(LEARNERS)}, got {learner!r}.{hint}")
    weights = numerics.softmax(numerics.accumulate(user_logits) / temperature)
    return LEARNERS[learner](weights, numerics.accumulate(prototypes), project)


def nearness(embeddings: Array, points: Array) -> Array:
    """Score by distance, ``[..., K, E]`` and ``[..., E] -> [..., K]``: minus the Euclidean distance."""
    return -embedding.distance(embeddings, points[..., None, :])


def alignment(embeddings: Array, points: Array, logit_scale: float | Array) -> Array:
    """Score by angle: cosine times ``min(exp(logit_scale), 100)``."""
    return embedding.cosine(embeddings, points[..., None, :]) * jnp.minimum(jnp.exp(logit_scale), 100.0)


LOSSES: dict[str, Link] = {
    "hinge": links.hinge,
    "hinge_smooth": links.smooth_hinge(5.0),
    "logistic": links.logistic,
}
"""Loss of a margin. Cross-entropy of the two scores, the loss of the angle variant, is ``logistic``."""


def pal(
    embeddings: Array,
    ideal_points: Array,
    *,
    preference: str = "distance",
    loss: str = "hinge",
    logit_scale: float | Array = 2.659260036932778,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Pluralistic alignment with ideal points: of two items, the one nearer to the user's ideal point is preferred.

    .. math:: \ell = f(s_w - s_l),\quad s = -\|x - a_u\|\quad\text{or}\quad s = \min(e^{\kappa}, 100)\cos(x, a_u)

    Args:
      embeddings: ``[..., 2, E]`` projected items, chosen first.
      ideal_points: ``[..., E]`` ideal point of the user who judged (:func:`ideal_points`); differentiable too.
      preference: ``distance`` or ``angle``.
      loss: ``hinge`` (margin 1), ``hinge_smooth`` (quadratic over its first 5) or ``logistic``, with which the angle
        variant has its cross-entropy.
      logit_scale: kappa of the angle, log(1/0.07) at first.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: unknown preference or loss, or the shapes disagree.

    >>> items, point = jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([0.0, 0.0])
    >>> print(f"{pal(items, point, loss='logistic'):.4f}")
    0.0067

    References:
      Chen et al., *PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences*, arXiv:2406.08469.
    """
    check_pairs(**{"where": where, "embeddings without their last axis": embeddings[..., 0]})
    check_shapes(**{"ideal_points": ideal_points, "embeddings of one response": embeddings[..., 0, :]})
    for name, given, known in (("preference", preference, ("distance", "angle")), ("loss", loss, LOSSES)):
        if given not in known:
            hint = errors.close_matches(given, known)
            raise errors.UserError(f"{name} must be one of {', '.join(known)}, got {given!r}.{hint}")
    items = numerics.accumulate(numerics.clean(embeddings, None if where is None else where[..., None]))
    whole = compare.pair_where(where)
    points = numerics.accumulate(numerics.clean(ideal_points, None if whole is None else whole[..., None]))
    score = nearness(items, points) if preference == "distance" else alignment(items, points, logit_scale)
    return compare.pairs(score, labels.hard, LOSSES[loss], where, reduce)

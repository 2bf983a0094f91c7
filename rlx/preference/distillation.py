"""Distillation: classes or tokens on the last axis ``[..., V]``; a unit is an example or a token.

``where [...]`` marks real units. The weightings of the terms of Plackett-Luce distillation are functions of the
teacher's logits in ranking order.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean, token_mean
from rlx.preference import compare, named
from rlx.types import Array, Reduce, check_positive, check_shapes

Weighting = Callable[[Array, float], Array]
"""``(teacher logits in ranking order [..., V], temperature) -> weights of the terms [..., V]``."""


def teacher(ranked: Array, temperature: float) -> Array:
    r"""The teacher's own mass at each rank, :math:`\mathrm{softmax}(t/T)`: PLD.

    >>> print(teacher(jnp.array([0.0, 0.0]), 1.0))
    [0.5 0.5]
    """
    return numerics.softmax(numerics.accumulate(ranked) / temperature)


def uniform(ranked: Array, temperature: float) -> Array:
    """``1/V`` at each rank: ListMLE of the ranking.

    >>> print(uniform(jnp.array([3.0, 0.0]), 1.0))
    [0.5 0.5]
    """
    return jnp.full(ranked.shape, 1 / ranked.shape[-1], numerics.accumulate(ranked).dtype)


def top1(ranked: Array, temperature: float) -> Array:
    """All weight on the first rank, the target: cross-entropy.

    >>> print(top1(jnp.array([3.0, 0.0]), 1.0))
    [1. 0.]
    """
    first = jnp.arange(ranked.shape[-1]) == 0
    return jnp.broadcast_to(first, ranked.shape).astype(numerics.accumulate(ranked).dtype)


def position(ranked: Array, temperature: float) -> Array:
    r""":math:`2^{V-k} - 1` at rank k, not normalised: p-ListMLE. Finite up to V = 127 in float32.

    >>> print(position(jnp.array([3.0, 0.0, 1.0]), 1.0))
    [3. 1. 0.]
    """
    left = jnp.arange(ranked.shape[-1] - 1, -1, -1)
    weights = jnp.ldexp(jnp.ones((), numerics.accumulate(ranked).dtype), left) - 1
    return jnp.broadcast_to(weights, ranked.shape)


WEIGHTINGS: dict[str, Weighting] = {"teacher": teacher, "uniform": uniform, "top1": top1, "position": position}
"""What a config calls them."""


def ranking(teacher_logits: Array, targets: Array, where: Array | None = None) -> Array:
    """The target, then all other classes by descending teacher logit, ties by position; ruled-out classes last.

    Args:
      teacher_logits: ``[..., V]``.
      targets: ``[...]`` int.
      where: ``[..., V]`` the classes that can be ranked.

    Returns:
      ``[..., V]`` int, best first.

    >>> print(ranking(jnp.array([0.0, 5.0, 1.0]), jnp.array(2)))
    [2 1 0]
    """
    is_target = jnp.arange(teacher_logits.shape[-1]) == targets[..., None]
    return compare.descending(jnp.where(is_target, jnp.inf, numerics.accumulate(teacher_logits)), where)


def pld(
    logits: Array,
    teacher_logits: Array,
    targets: Array,
    *,
    temperature: float = 1.0,
    weighting: str | Weighting = "teacher",
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Plackett-Luce distillation: the student ranks the target first and the rest as the teacher does.

    .. math:: \ell = \sum_k \alpha_k\left(\log\sum_{l\ge k} e^{s_{\pi_l}} - s_{\pi_k}\right),\quad
       \alpha_k = \mathrm{softmax}(t/T)_{\pi_k}

    with :math:`\pi` of :func:`ranking`. The temperature divides the teacher's logits alone, the order does not depend
    on it. Classes that the student rules out (logit -inf) leave the ranking; a target among them costs infinity.

    Args:
      logits: ``[..., V]`` student logits s.
      teacher_logits: ``[..., V]`` teacher logits t; a constant.
      targets: ``[...]`` int true classes; one outside of the classes gives NaN where it is not masked.
      temperature: T, above 0.
      weighting: ``teacher``, ``uniform``, ``top1``, ``position`` or your own function.
      where: ``[...]`` real units.
      reduce: how units become one number; None gives ``[...]``.

    Raises:
      UserError: unknown weighting, temperature is not above 0, or the shapes disagree.

    >>> print(f"{pld(jnp.zeros(3), jnp.array([0.0, 5.0, 1.0]), jnp.array(2), weighting='uniform'):.4f}")
    0.5973

    References:
      *Plackett-Luce Distillation*, arXiv:2506.12542.
    """
    check_positive(temperature=temperature)
    weigh = named.by_name(weighting, WEIGHTINGS, "weighting")
    logits, teacher_logits, targets, known = _examples(logits, teacher_logits, targets, where)
    possible = ~jnp.isneginf(logits) | (jnp.arange(logits.shape[-1]) == targets[..., None])
    order = ranking(teacher_logits, targets, possible)
    terms, real = compare.plackett_luce(logits, order, possible)
    weights = weigh(jnp.take_along_axis(teacher_logits, order, -1), temperature)
    loss = numerics.sum(weights * terms, -1, where=real & (weights != 0))
    return aggregate.finish(jnp.where(known, loss, jnp.nan), where, reduce)


def _examples(
    logits: Array, teacher_logits: Array, targets: Array, where: Array | None
) -> tuple[Array, Array, Array, Array]:
    """Student, teacher (a constant) and targets, shapes checked and masked units cleaned; which targets are classes."""
    check_shapes(logits=logits, teacher_logits=teacher_logits)
    check_shapes(**{"targets": targets, "where": where, "the logits without their last axis": logits[..., 0]})
    rows = None if where is None else where[..., None]
    student, taught = (numerics.clean(numerics.accumulate(x), rows) for x in (logits, teacher_logits))
    targets = numerics.clean(jnp.asarray(targets), where)
    known = (targets >= 0) & (targets < logits.shape[-1])
    return student, jax.lax.stop_gradient(taught), targets, known


def pld_token_level(
    logits: Array,
    teacher_logits: Array,
    targets: Array,
    *,
    temperature: float = 1.0,
    where: Array | None = None,
    reduce: Reduce | None = token_mean,
) -> Array:
    r"""Plackett-Luce distillation of every token: :func:`pld` over ``[..., T, V]`` with the token mean.

    .. math:: \ell_t = \sum_k \alpha_{t,k}\left(\log\sum_{l\ge k} e^{s_{t,\pi_l}} - s_{t,\pi_k}\right)

    Args:
      logits: ``[..., T, V]`` student logits, position t predicts ``targets[..., t]``.
      teacher_logits: ``[..., T, V]`` teacher logits; a constant.
      targets: ``[..., T]`` int tokens.
      temperature: divides the teacher's logits, above 0.
      where: ``[..., T]`` tokens that count.
      reduce: how tokens become one number (:mod:`rlx.aggregate`); None gives ``[..., T]``.

    Raises:
      UserError: temperature is not above 0, or the shapes disagree.

    >>> print(f"{pld_token_level(jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.array([0, 2])):.4f}")
    0.5973

    References:
      *Plackett-Luce Distillation*, arXiv:2506.12542, applied to tokens.
    """
    return pld(logits, teacher_logits, targets, temperature=temperature, where=where, reduce=reduce)


def negative_log_likelihood(logits: Array, targets: Array) -> Array:
    """Cross-entropy with the true classes: ``[..., V], [...] -> [...]``; NaN where a target is no class.

    >>> print(f"{negative_log_likelihood(jnp.zeros(4), jnp.array(1)):.4f}")
    1.3863
    """
    known = (targets >= 0) & (targets < logits.shape[-1])
    picked = jnp.take_along_axis(numerics.log_softmax(logits), jnp.where(known, targets, 0)[..., None], -1)
    return jnp.where(known, -picked[..., 0], jnp.nan)


def divergence(teacher_logits: Array, logits: Array) -> Array:
    r""":math:`KL(\mathrm{softmax}(t)\,\|\,\mathrm{softmax}(s))` over the last axis: ``[..., V] -> [...]`` nats.

    >>> print(f"{divergence(jnp.array([0.0, -jnp.inf]), jnp.zeros(2)):.4f}")
    0.6931
    """
    taught, learned = numerics.log_softmax(teacher_logits), numerics.log_softmax(logits)
    likely = ~jnp.isneginf(taught)
    gap = jnp.where(likely, taught, 0) - jnp.where(likely, learned, 0)
    return numerics.sum(numerics.softmax(teacher_logits) * gap, -1, where=likely)


def hinton_kd(
    logits: Array,
    teacher_logits: Array,
    targets: Array,
    *,
    alpha: float = 0.1,
    temperature: float = 2.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Knowledge distillation: cross-entropy with the true class, and KL from the softened teacher.

    .. math:: \ell = -\alpha\log\mathrm{softmax}(s)_y
       + (1-\alpha)\,T^2\,KL(\mathrm{softmax}(t/T)\,\|\,\mathrm{softmax}(s/T))

    Args:
      logits: ``[..., V]`` student logits s.
      teacher_logits: ``[..., V]`` teacher logits t; a constant.
      targets: ``[...]`` int true classes y.
      alpha: weight of the cross-entropy.
      temperature: T, above 0.
      where: ``[...]`` real units.
      reduce: how units become one number; None gives ``[...]``.

    Raises:
      UserError: temperature is not above 0, or the shapes disagree.

    >>> print(f"{hinton_kd(jnp.zeros(2), jnp.zeros(2), jnp.array(0)):.4f}")
    0.0693

    References:
      Hinton et al., *Distilling the Knowledge in a Neural Network*, arXiv:1503.02531; mixed as in arXiv:2506.12542.
    """
    check_positive(temperature=temperature)
    student, taught, targets, _ = _examples(logits, teacher_logits, targets, where)
    softened = divergence(taught / temperature, student / temperature)
    losses = alpha * negative_log_likelihood(student, targets) + (1 - alpha) * temperature**2 * softened
    return aggregate.finish(losses, where, reduce)


def correlation(
    x: Array,
    y: Array,
    axis: int,
    *,
    epsilon: float = 1e-8,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """Pearson correlation along an axis, with ``epsilon`` added to the product of the norms; 0 of what is constant.

    >>> print(f"{correlation(jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 4.0, 6.0]), 0):.4f}")
    1.0000
    """
    over = {"where": where, "axis_name": axis_name}
    x, y = (z - numerics.mean(z, axis, keepdims=True, **over) for z in (x, y))
    squares = (numerics.sum(jnp.square(z), axis, **over) for z in (x, y))
    norms = (jnp.where(z == 0, 0, jnp.sqrt(jnp.where(z == 0, 1, z))) for z in squares)
    return numerics.sum(x * y, axis, **over) / (next(norms) * next(norms) + epsilon)


def dist(
    logits: Array,
    teacher_logits: Array,
    targets: Array,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DIST: the student's probabilities correlate with the teacher's, inside an example and inside a class.

    .. math:: \ell_n = -\alpha\log\mathrm{softmax}(s_n)_{y_n} + \beta T^2\,(1 - \rho(p^s_{n\cdot}, p^t_{n\cdot}))
       + \gamma T^2\,\frac{1}{V}\sum_v (1 - \rho(p^s_{\cdot v}, p^t_{\cdot v})),\quad p = \mathrm{softmax}(\cdot/T)

    with :math:`\rho` the Pearson correlation. The last term couples the whole batch and is differentiated through, so
    the loss cannot be split into micro-batches; it wants at least two examples. The paper's settings:
    ``alpha=1, beta=gamma=2, temperature=4`` on CIFAR.

    Args:
      logits: ``[..., V]`` student logits s; all leading axes are the batch.
      teacher_logits: ``[..., V]`` teacher logits t; a constant.
      targets: ``[...]`` int true classes y.
      alpha: weight of the cross-entropy.
      beta: weight of the correlation over classes.
      gamma: weight of the correlation over examples.
      temperature: T, above 0.
      where: ``[...]`` real units.
      axis_name: mapped axes that the batch is spread over.
      reduce: how units become one number; None gives ``[...]``, the last term the same for all.

    Raises:
      UserError: temperature is not above 0, or the shapes disagree.

    >>> logits, targets = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]]), jnp.array([0, 2])
    >>> print(f"{abs(dist(logits, logits, targets, alpha=0.0)):.4f}")
    0.0000

    References:
      Huang et al., *Knowledge Distillation from A Stronger Teacher*, arXiv:2205.10536.
    """
    check_positive(temperature=temperature)
    student, taught, targets, _ = _examples(logits, teacher_logits, targets, where)
    p, q = (numerics.softmax(x / temperature) for x in (student, taught))
    rows = None if where is None else jnp.ravel(where)[:, None]
    classes = p.shape[-1]
    columns = correlation(p.reshape(-1, classes), q.reshape(-1, classes), 0, where=rows, axis_name=axis_name)
    apart = beta * (1 - correlation(p, q, -1)) + gamma * (1 - columns.mean())
    losses = alpha * negative_log_likelihood(student, targets) + temperature**2 * apart
    return aggregate.finish(losses, where, reduce)

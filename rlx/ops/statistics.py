"""Statistics of the next-token distribution, log-probability, entropy and kin: from logits or from hidden states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rlx.errors import UserError, close_matches

BATCH_AXES = ("data", "fsdp")
LENGTH_AXIS = "sequence"
VOCAB_AXIS = "model"
PAIRED = ("kl", "reverse_kl", "js")


class TokenStatistics(NamedTuple):
    """Arrays shaped like ``targets`` (float32, float64 for float64 inputs), 0 where masked, None if not asked for.

    With logits ``z`` (after soft-cap and temperature), ``p = softmax(z)``, ``v = z - E_p z`` and the target ``t``:

    Attributes:
        logp: ``log p_t``, natural logarithm, at most 0.
        entropy: ``H = -sum p log p`` in nats.
        lse: ``log sum exp z``.
        mean: ``sum p z``.
        variance: ``sum p v^2``, which is the variance of ``log p``.
        covariance: ``Cov_{a~p}(log p_a, y_a)``; only with ``y``.
        renyi2: Renyi entropy of order 2, ``-log sum p^2``, in nats.
        max_logp: ``max log p``; its gradient goes to the first of equal maxima.
        entropy_change: change of the entropy, to first order and per unit of step size times advantage, when the policy
            gradient of the target moves the logits: ``sum p^2 v - p_t v_t``.
        top_p_entropy: entropy of p within its nucleus of mass ``top_p``, renormalised.
        top_k_entropy: entropy of p within its ``top_k`` most probable tokens, renormalised.
        tsallis: Tsallis entropy ``(1 - sum p^q) / (q - 1)`` of order ``tsallis_order``.
        kl: ``KL(other || p)``, the expectation under ``other``; this and the next two only with ``other``.
        reverse_kl: ``KL(p || other)``.
        js: Jensen-Shannon divergence, the mean of both ``KL(. || (p + other) / 2)``.
    """

    logp: jax.Array | None = None
    entropy: jax.Array | None = None
    lse: jax.Array | None = None
    mean: jax.Array | None = None
    variance: jax.Array | None = None
    covariance: jax.Array | None = None
    renyi2: jax.Array | None = None
    max_logp: jax.Array | None = None
    entropy_change: jax.Array | None = None
    top_p_entropy: jax.Array | None = None
    top_k_entropy: jax.Array | None = None
    tsallis: jax.Array | None = None
    kl: jax.Array | None = None
    reverse_kl: jax.Array | None = None
    js: jax.Array | None = None


def token_statistics(
    logits: jax.Array,
    targets: jax.Array,
    *,
    where: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    softcap: float | None = None,
    statistics: tuple[str, ...] = ("logp",),
    y: jax.Array | None = None,
    other: jax.Array | None = None,
    top_p: float = 0.8,
    top_p_rule: str = "crossing",
    top_k: int = 20,
    tsallis_order: float = 2.0,
    implementation: str | None = None,
    mesh: Mesh | None = None,
    axis_name: str | None = None,
    rows: int | None = None,
) -> TokenStatistics:
    """Statistics of given logits, differentiable in ``logits``, ``y``, ``other`` and ``temperature``.

    Half-precision logits are never copied to float32 as a whole, and the gradient has their type.

    Args:
        logits: ``[..., V]``; -inf marks impossible tokens.
        targets: int ``[...]``.
        where: bool ``[...]``; masked positions give 0 and receive no gradient, whatever they hold.
        temperature: the logits are divided by it, after the soft-cap; a number, or an array like ``targets``.
        softcap: ``softcap * tanh(logits / softcap)``.
        statistics: which fields of ``TokenStatistics`` to compute.
        y: ``[..., V]`` or ``[V]`` numbers of the tokens: needed by (only) ``'covariance'``.
        other: ``[..., V]`` logits of another policy, same soft-cap and temperature: needed by (only) ``'kl'``,
            ``'reverse_kl'`` and ``'js'``.
        top_p: mass of the nucleus, in (0, 1].
        top_p_rule: what happens to the token that crosses it: ``'crossing'`` keeps it, ``'strict'`` does not,
            ``'at_least_one'`` only if it is the first.
        top_k: at least 1.
        tsallis_order: q, above 0 and not 1.
        implementation: ``'xla'``, ``'tpu'``, ``'hopper'`` or ``'reference'`` (plain autodiff); by default the kernel of
            the platform, or XLA for what that declines.
        mesh: runs inside ``shard_map``, rows split over 'data', 'fsdp' and 'sequence', V over 'model'.
        axis_name: instead of a mesh, an axis of the caller's own ``shard_map`` over which V is split.
        rows: rows of a chunk (XLA), by default picked from the bytes of its logits.

    Raises:
        UserError: an unknown statistic, rule or implementation, a shape that does not fit, an array that is missing.
        NotImplementedError: the implementation asked for cannot do this; the message says why.

    >>> out = token_statistics(jnp.zeros((1, 4)), jnp.array([2]), statistics=("logp", "entropy"))
    >>> print(f"{out.logp[0]:.4f} {out.entropy[0]:.4f}")
    -1.3863 1.3863
    """
    from rlx_kernels.problem import Head

    _check_shape("logits", logits.shape[:-1], targets)
    spec = _spec(statistics, softcap, top_p, top_p_rule, top_k, tsallis_order, y, other)
    head = Head(logits=logits.reshape(-1, logits.shape[-1]))
    call = _Call(targets, where, temperature, y, other, implementation, mesh, axis_name, rows)
    return _run(head, spec, call)


def linear_token_statistics(
    hidden: jax.Array,
    unembedding: jax.Array,
    targets: jax.Array,
    *,
    where: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    softcap: float | None = None,
    bias: jax.Array | None = None,
    statistics: tuple[str, ...] = ("logp", "entropy"),
    y: jax.Array | None = None,
    other: jax.Array | tuple[jax.Array, ...] | None = None,
    top_p: float = 0.8,
    top_p_rule: str = "crossing",
    top_k: int = 20,
    tsallis_order: float = 2.0,
    implementation: str | None = None,
    mesh: Mesh | None = None,
    axis_name: str | None = None,
    rows: int | None = None,
    tied: bool = False,
) -> TokenStatistics:
    """Statistics of the logits ``hidden @ unembedding + bias``, which are never stored as a whole.

    Differentiable in ``hidden``, ``unembedding``, ``bias``, ``y``, ``other`` and ``temperature``. Half-precision inputs
    give float32 statistics, and float32 sums of the gradients.

    Args:
        hidden: ``[N, ..., D]``; with a mesh, N is split over the axes 'data' and 'fsdp', what follows over 'sequence'.
        unembedding: ``[D, V]``; with a mesh, V is split over the axis 'model'.
        targets: int ``[N, ...]``.
        where: bool ``[N, ...]``; masked positions give 0 and receive no gradient, whatever they hold, and cost little.
        bias: ``[V]``; -inf marks impossible tokens.
        other: the logits ``[N, ..., V]`` of another policy, or its ``(hidden, unembedding)`` or ``(hidden, unembedding,
            bias)``.
        rows: rows of a chunk; by default XLA works in chunks of rows or of the vocabulary, by platform and bytes.
        tied: ``unembedding`` is the transpose of an embedding ``[V, D]``, whose gradient then needs no copy.
        temperature, softcap, statistics, y, top_p, top_p_rule, top_k, tsallis_order, implementation, mesh, axis_name:
            as in :func:`token_statistics`.

    Raises:
        UserError: an unknown statistic, rule or implementation, a shape that does not fit, an array that is missing.
        NotImplementedError: the implementation asked for cannot do this; the message says why.

    >>> out = linear_token_statistics(jnp.ones((2, 3)), jnp.zeros((3, 8)), jnp.array([1, 7]))
    >>> print(out.logp.round(4), out.entropy.round(4))
    [-2.0794 -2.0794] [2.0794 2.0794]
    """
    _check_shape("hidden", hidden.shape[:-1], targets)
    spec = _spec(statistics, softcap, top_p, top_p_rule, top_k, tsallis_order, y, other)
    if not isinstance(temperature, (int, float)) and softcap is None and other is None:
        # a product commutes with a scale, and every body can do a product
        temperature = jnp.broadcast_to(temperature, targets.shape)
        if bias is None:
            hidden, temperature = hidden / temperature[..., None].astype(hidden.dtype), 1.0
    head = _product_head("hidden", hidden, unembedding, bias, where)
    call = _Call(targets, where, temperature, y, other, implementation, mesh, axis_name, rows, tied)
    return _run(head, spec, call)


def fused_linear_token_loss(
    loss: Callable[..., jax.Array],
    hidden: jax.Array,
    unembedding: jax.Array,
    targets: jax.Array,
    *operands: jax.Array,
    where: jax.Array | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    bias: jax.Array | None = None,
    statistics: tuple[str, ...] = ("logp", "entropy"),
    top_p: float = 0.8,
    top_p_rule: str = "crossing",
    top_k: int = 20,
    tsallis_order: float = 2.0,
    mesh: Mesh | None = None,
    rows: int | None = None,
) -> jax.Array:
    r"""The sum over tokens of ``loss(statistics, *operands)``, with the gradient made on the way forward.

    .. math:: L = \sum_i \ell(s_i, o_i)

    A chunk of logits is computed once, 6 N D V operations instead of the 8 of :func:`linear_token_statistics`, which
    computes it again on the way back. That needs a loss that is a sum over tokens whose weights are known beforehand:
    normalisers, advantages and selections over the batch are operands, not part of ``loss``.

    Args:
        loss: from a ``TokenStatistics`` of arrays ``[R]`` and operands ``[R, ...]`` to losses ``[R]``, elementwise.
        operands: arrays ``[N, ..., ...]`` that begin with the shape of ``targets``.
        hidden, unembedding, targets, where, temperature, softcap, bias, statistics, top_p, top_p_rule, top_k,
            tsallis_order, mesh, rows: as in :func:`linear_token_statistics`; ``temperature`` is a number.

    Returns:
        A scalar, differentiable once in ``hidden``, ``unembedding``, ``bias`` and ``operands``.

    Raises:
        UserError: an unknown statistic or rule, a shape that does not fit.

    >>> def loss(found, weights):
    ...     return -weights * found.logp
    >>> weights = jnp.array([1.0, 0.0])
    >>> print(fused_linear_token_loss(loss, jnp.ones((2, 3)), jnp.zeros((3, 8)), jnp.array([1, 7]), weights).round(4))
    2.0794
    """
    from rlx_kernels import dispatch, fused
    from rlx_kernels.problem import Problem

    _check_shape("hidden", hidden.shape[:-1], targets)
    for index, operand in enumerate(operands):
        if operand.shape[: targets.ndim] != targets.shape:
            raise UserError(f"operand {index} {operand.shape} must begin with the shape {targets.shape} of targets")
    if set(statistics) & {*PAIRED, "covariance"}:
        raise UserError(f"a fused loss has no other policy and no y; got statistics={statistics}")
    spec = _spec(statistics, softcap, top_p, top_p_rule, top_k, tsallis_order, None, None)
    column = (targets.size, 1)
    live = None if where is None else jnp.broadcast_to(where, targets.shape).reshape(column)
    head = _product_head("hidden", hidden, unembedding, bias, where)
    problem = Problem(head, targets.reshape(column), live=live)
    axes, vocab_axis = _split(mesh, targets.shape, head.columns)
    places = {"mesh": mesh if axes or vocab_axis else None, "batch_axes": axes, "vocab_axis": vocab_axis}
    options = dispatch.plan_rows(problem, spec._replace(temperature=temperature), rows=rows, **places)
    flat = tuple(x.reshape(targets.size, *x.shape[targets.ndim :]) for x in operands)
    return fused.token_loss(lambda found, args: loss(TokenStatistics(**found), *args), problem, flat, options)


class _Call(NamedTuple):
    """The arguments that both functions share, as they were given."""

    targets: jax.Array
    where: jax.Array | None
    temperature: Any
    y: jax.Array | None
    other: Any
    implementation: str | None
    mesh: Mesh | None
    axis_name: str | None
    rows: int | None
    tied: bool = False


def _run(head: Any, spec: Any, call: _Call) -> TokenStatistics:
    from rlx_kernels import dispatch, frame, reference
    from rlx_kernels.problem import Problem

    shape = call.targets.shape
    column = (math.prod(shape), 1)
    temperature = None
    if isinstance(call.temperature, (int, float)):
        spec = spec._replace(temperature=call.temperature)
    else:
        temperature = jnp.broadcast_to(call.temperature, shape).reshape(column).astype(_wide(head.dtype))
    problem = Problem(
        head,
        call.targets.reshape(column),
        other=None if call.other is None else _other(call, head.columns),
        y=None if call.y is None else _numbers(call.y, shape, head.columns, _wide(head.dtype)),
        temperature=temperature,
        live=None if call.where is None else jnp.broadcast_to(call.where, shape).reshape(column),
    )
    _check_implementation(call.implementation)
    if call.implementation == "reference":
        out = reference.of_problem(_without_masked(problem), spec)
    else:
        axes, vocab_axis = _split(call.mesh, shape, head.columns)
        mesh = call.mesh if axes or vocab_axis else None
        places = {"mesh": mesh, "batch_axes": axes, "vocab_axis": call.axis_name or vocab_axis, "rows": call.rows}
        options = dispatch.plan(problem, spec, call.implementation, tied=call.tied, **places)
        out = frame.statistics(problem, options)
    arrays = {name: value.reshape(shape) for name, value in out.items()}
    return TokenStatistics(**{k: v if call.where is None else jnp.where(call.where, v, 0) for k, v in arrays.items()})


def _wide(dtype) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _product_head(name: str, hidden: jax.Array, unembedding: jax.Array, bias: Any, where: Any) -> Any:
    """Hidden states, 0 where masked, so that nothing they hold reaches the gradient of the weights."""
    from rlx_kernels.problem import Head

    if hidden.shape[-1] != unembedding.shape[0]:
        raise UserError(f"{name} {hidden.shape} and unembedding {unembedding.shape} differ in D")
    hidden = hidden if where is None else jnp.where(where[..., None], hidden, 0)
    return Head(x=hidden.reshape(-1, hidden.shape[-1]), w=unembedding, bias=bias)


def _other(call: _Call, vocab: int) -> Any:
    """The head of the other policy: given as logits, or as a tuple of hidden states, unembedding and maybe a bias."""
    from rlx_kernels.problem import Head

    if isinstance(call.other, tuple):
        hidden, unembedding, *bias = call.other
        _check_shape("other's hidden", hidden.shape[:-1], call.targets)
        head = _product_head("other's hidden", hidden, unembedding, bias[0] if bias else None, call.where)
    else:
        _check_shape("other", call.other.shape[:-1], call.targets)
        head = Head(logits=call.other.reshape(-1, call.other.shape[-1]))
    if head.columns != vocab:
        raise UserError(f"other has a vocabulary of {head.columns} tokens, the policy one of {vocab}")
    return head


def _numbers(y: jax.Array, shape: tuple[int, ...], vocab: int, dtype: Any) -> jax.Array:
    if y.shape not in ((vocab,), (*shape, vocab)):
        raise UserError(f"y {y.shape} must be {(vocab,)} or {(*shape, vocab)}")
    return (y if y.shape == (vocab,) else y.reshape(-1, vocab)).astype(dtype)


def _without_masked(problem: Any) -> Any:
    """Zeros in the masked rows of given logits: autodiff has no other way to leave them out."""

    def clean(head: Any) -> Any:
        if head is None or head.logits is None or problem.live is None:
            return head
        return head._replace(logits=jnp.where(problem.live, head.logits, 0))

    return problem._replace(head=clean(problem.head), other=clean(problem.other))


def _split(mesh: Mesh | None, shape: tuple[int, ...], vocab: int) -> tuple[tuple[str, ...], str | None]:
    """The mesh axes over which rows and vocabulary are split; those that do not divide evenly are left whole."""
    if mesh is None:
        return (), None
    axes = tuple(axis for axis in BATCH_AXES if mesh.shape.get(axis, 1) > 1)
    if (shape[0] if shape else 1) % math.prod(mesh.shape[axis] for axis in axes):
        axes = ()
    longer = (*axes, LENGTH_AXIS)
    if mesh.shape.get(LENGTH_AXIS, 1) > 1 and not math.prod(shape) % math.prod(mesh.shape[axis] for axis in longer):
        axes = longer
    size = mesh.shape.get(VOCAB_AXIS, 1)
    return axes, VOCAB_AXIS if size > 1 and vocab % size == 0 else None


def _spec(statistics, softcap, top_p, rule, top_k, order, y, other) -> Any:
    """The options of the mathematics, checked."""
    from rlx_kernels import core, most_probable

    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    for name in names:
        if name not in TokenStatistics._fields:
            hint = close_matches(name, TokenStatistics._fields)
            raise UserError(f"unknown statistic {name!r}.{hint} Known: {', '.join(TokenStatistics._fields)}")
        if name in PAIRED and other is None:
            raise UserError(f"the statistic {name!r} needs another policy: other=")
    if "covariance" in names and y is None:
        raise UserError("the statistic 'covariance' needs a number for every token: y=")
    if rule not in most_probable.RULES:
        hint = close_matches(rule, most_probable.RULES)
        raise UserError(f"unknown top_p_rule {rule!r}.{hint} Known: {', '.join(most_probable.RULES)}")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is a probability mass and must be in (0, 1], got {top_p}")
    if top_k < 1:
        raise UserError(f"top_k is a number of tokens and must be at least 1, got {top_k}")
    if not order > 0 or order == 1:
        raise UserError(f"tsallis_order must be above 0 and not 1 (that is 'entropy'), got {order}")
    return core.Spec(names, 1.0, softcap, top_p, rule, top_k, order)


def _check_implementation(name: str | None) -> None:
    from rlx_kernels.dispatch import IMPLEMENTATIONS

    if name not in (None, *IMPLEMENTATIONS):
        hint = close_matches(name, IMPLEMENTATIONS)
        raise UserError(f"unknown implementation {name!r}.{hint} Known: {', '.join(IMPLEMENTATIONS)}")


def _check_shape(name: str, leading: tuple[int, ...], targets: jax.Array) -> None:
    if leading != targets.shape:
        raise UserError(f"targets {targets.shape} must have the leading shape {leading} of {name}")

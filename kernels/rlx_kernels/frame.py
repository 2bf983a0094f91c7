"""The frame around every body: the hand-written derivative, the mesh, masked rows, and the choice of a body.

Forward and backward are plain functions of local arrays. Given a mesh they run inside ``shard_map``: rows split over
the batch axes, the vocabulary over ``vocab_axis``; autodiff never goes through a loop nor through the sharding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from rlx_kernels import columns, core, gradients, rows
from rlx_kernels.problem import Head, Problem, vary


class Options(NamedTuple):
    """What is fixed at trace time. ``body`` is 'rows', 'columns', 'tpu' or 'hopper'; ``None`` axes are not split.

    Without a mesh, ``vocab_axis`` is an axis of the caller's own ``shard_map``. ``interpret`` runs a kernel without its
    device. ``tied``: the weights are the transpose of an embedding.
    """

    spec: core.Spec
    body: str = "rows"
    size: int = 256
    mesh: Mesh | None = None
    batch_axes: tuple[str, ...] = ()
    vocab_axis: str | None = None
    interpret: Any = None
    tied: bool = False


def statistics(problem: Problem, options: Options) -> dict[str, jax.Array]:
    """The statistics ``[N]`` of a problem, whose ``targets``, ``live`` and ``temperature`` are ``[N, 1]``.

    >>> problem = Problem(Head(x=jnp.ones((2, 3)), w=jnp.zeros((3, 8))), jnp.array([[1], [7]]))
    >>> print(statistics(problem, Options(core.Spec(("entropy",))))["entropy"].round(4))
    [2.0794 2.0794]
    """
    if jax.sharding.get_abstract_mesh().manual_axes:
        # In a caller's shard_map: the weights take the variance of the rows, whose gradients they collect.
        own = problem.head
        local = own.logits if own.x is None else own.x

        def collecting(head: Head) -> Head:
            return head._replace(**vary({"w": head.w, "bias": head.bias}, local))

        y = vary(problem.y, local) if shared(problem.y) else problem.y
        other = None if problem.other is None else collecting(problem.other)
        problem = problem._replace(head=collecting(own), other=other, y=y)
    constant = problem.targets, problem.live
    return _statistics(problem._replace(targets=None, live=None), constant, options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _statistics(problem: Problem, constant, options: Options) -> dict[str, jax.Array]:
    return _forward(problem, constant, options)[0]


def _forward(problem: Problem, constant, options: Options):
    of_rows, of_problem = partition(problem, options)
    local = functools.partial(_local_forward, options)
    specs = of_problem, jax.tree.map(lambda _: of_rows, constant)
    out, sums = on_mesh(local, options, specs, of_rows)(problem, constant)
    return out, (problem, constant, sums)


def _backward(options: Options, residuals, cotangents):
    problem, constant, sums = residuals
    of_rows, of_problem = partition(problem, options)
    local = functools.partial(_local_backward, options)
    specs = of_problem, *jax.tree.map(lambda _: of_rows, (constant, sums, cotangents))
    return on_mesh(local, options, specs, of_problem)(problem, constant, sums, cotangents), None


_statistics.defvjp(_forward, _backward)


def partition(problem: Problem, options: Options) -> tuple[P, Any]:
    """Partition of rows, and of every array of a problem."""
    of_rows, vocab = P(options.batch_axes or None), options.vocab_axis

    def head(value: Head | None) -> Any:
        specs = Head(P(*of_rows, vocab), of_rows, P(None, vocab), P(vocab))
        return value and Head(*(x if x is None else spec for x, spec in zip(value, specs, strict=True)))

    y = None if problem.y is None else P(vocab) if shared(problem.y) else P(*of_rows, vocab)
    temperature = None if problem.temperature is None else of_rows
    return of_rows, Problem(head(problem.head), other=head(problem.other), y=y, temperature=temperature)


def on_mesh(function: Callable, options: Options, in_specs, out_specs) -> Callable:
    """``function`` of local arrays on every device of the mesh; as it is where there is none."""
    if options.mesh is None:
        return function
    return jax.shard_map(function, mesh=options.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def complete(problem: Problem, constant, options: Options) -> tuple[Problem, Any]:
    """The problem of this device, and the order of its rows where the live ones have been put first."""
    targets, live = constant
    offset = 0
    if options.vocab_axis is not None:
        offset = jax.lax.axis_index(options.vocab_axis) * problem.head.columns
    y = problem.y[None] if shared(problem.y) else problem.y
    problem = problem._replace(targets=targets, live=live, offset=offset, y=y)
    if live is None or problem.head.logits is not None or options.body == "columns":
        return problem, None
    if options.body == "rows" and problem.head.rows <= options.size:
        return problem, None
    order = jnp.argsort(~live[:, 0], stable=True)
    count = live.sum(dtype=jnp.int32)
    return permute(problem, order)._replace(live=None, count=count), order


def permute(problem: Problem, order: jax.Array) -> Problem:
    """The same problem with its rows in another order."""

    def rows(value: Any, *names: str) -> Any:
        new = {name: x[order] for name in names if (x := getattr(value, name)) is not None}
        return value and value._replace(**new)

    names = ["targets", "temperature", "live"]
    if problem.y is not None and problem.y.shape[0] > 1:
        names.append("y")
    own = problem._replace(
        head=rows(problem.head, "logits", "x"), other=problem.other and rows(problem.other, "logits", "x")
    )
    return rows(own, *names)


def _local_forward(options: Options, problem: Problem, constant):
    problem, order = complete(problem, constant, options)
    sums = merged(body_of(options).forward(problem), problem, options)
    if order is not None:
        sums = jax.tree.map(lambda x: jnp.zeros_like(x).at[order].set(x), sums)
    return {name: value[:, 0] for name, value in core.finalise(sums, options.spec).items()}, sums


def merged(sums: core.Sums, problem: Problem, options: Options) -> core.Sums:
    """Sums over the whole vocabulary; a target outside of it is NaN."""
    vocab = problem.head.columns
    if options.vocab_axis is not None:
        vocab *= jax.lax.axis_size(options.vocab_axis)
        if not options.spec.second_look:
            sums = core.merge_shards(sums, options.spec, options.vocab_axis)
    if sums.t is None:
        return sums
    inside = (problem.targets >= 0) & (problem.targets < vocab)
    return sums._replace(t=jnp.where(inside, sums.t, jnp.nan))


def _local_backward(options: Options, problem: Problem, constant, sums: core.Sums, cotangents):
    given, (problem, order) = problem, complete(problem, constant, options)
    rows = gradients.gradient(sums, options.spec, {name: g[:, None] for name, g in cotangents.items()})
    rows = rows if order is None else jax.tree.map(lambda x: x[order], rows)
    found = body_of(options).backward(problem, rows)
    if order is not None:
        found = permute(found._replace(targets=None), jnp.argsort(order))
    if shared(given.y):
        found = found._replace(y=found.y[0])
    return typed(collected(found, options), given)


def collected(found: Problem, options: Options) -> Problem:
    """Gradients summed over the devices that share an array."""
    if options.vocab_axis is not None:
        found = found._replace(
            head=sum_of(found.head, ("x",), options.vocab_axis),
            other=found.other and sum_of(found.other, ("x",), options.vocab_axis),
            temperature=psum(found.temperature, options.vocab_axis),
        )
    if options.batch_axes:
        found = found._replace(
            head=sum_of(found.head, ("w", "bias"), options.batch_axes),
            other=found.other and sum_of(found.other, ("w", "bias"), options.batch_axes),
            y=psum(found.y, options.batch_axes) if shared(found.y) else found.y,
        )
    return found


def typed(found: Problem, given: Problem) -> Problem:
    """Gradients in the types of the arrays."""
    return jax.tree.map(lambda x, g: g.astype(x.dtype), given, found)


def shared(y: Any) -> bool:
    """Whether numbers of the tokens ``[V]`` serve all rows."""
    return y is not None and y.ndim == 1


def psum(value: Any, axes: Any) -> Any:
    """The sum over mapped axes; None stays None."""
    return None if value is None else jax.lax.psum(value, axes)


def sum_of(head: Head, fields: tuple[str, ...], axes: Any) -> Head:
    """The head with these fields summed over mapped axes."""
    return head._replace(**{name: psum(getattr(head, name), axes) for name in fields})


class Body(NamedTuple):
    """``forward(problem) -> Sums`` and ``backward(problem, rows) -> gradients`` of local arrays, no collectives."""

    forward: Callable[[Problem], core.Sums]
    backward: Callable[[Problem, gradients.Gradient], Problem]


def body_of(options: Options) -> Body:
    """The two functions of the body that the options name, its sizes filled in."""
    spec, size = options.spec, options.size
    if options.body == "rows":
        return Body(
            lambda p: rows.forward(p, spec, size, options.vocab_axis), lambda p, g: rows.backward(p, g, spec, size)
        )
    if options.body == "columns":
        tied = options.tied
        return Body(
            lambda p: columns.forward(p, spec, size, tied), lambda p, g: columns.backward(p, g, spec, size, tied)
        )
    if options.body == "tpu":
        from rlx_kernels import tpu as kernels
    else:
        from rlx_kernels import hopper as kernels
    how = {"interpret": options.interpret}
    return Body(lambda p: kernels.forward(p, spec, **how), lambda p, g: kernels.backward(p, g, spec, **how))

"""A loss of the tokens of a head, with its gradient made on the way forward: each chunk of logits is computed once.

The other bodies compute the logits again on the way back, 8 N D V operations in all; this takes 6, where the weight of
every token in the loss is known beforehand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from rlx_kernels import core, frame, gradients, rows
from rlx_kernels.frame import Options
from rlx_kernels.problem import Problem, from_bits, to_bits, zeros_like

Loss = Callable[[dict[str, jax.Array], Any], jax.Array]
"""From the statistics of rows ``[R]`` and their operands to their losses ``[R]``."""


def token_loss(loss: Loss, problem: Problem, operands: Any, options: Options) -> jax.Array:
    """``sum_i loss(statistics of row i, operands of row i)`` over the live rows.

    >>> from rlx_kernels.problem import Head
    >>> problem = Problem(Head(x=jnp.ones((2, 3)), w=jnp.zeros((3, 8))), jnp.array([[1], [7]]))
    >>> loss = lambda found, weights: -weights * found["logp"]
    >>> print(token_loss(loss, problem, jnp.array([1.0, 0.0]), Options(core.Spec(("logp",)))).round(4))
    2.0794
    """
    constant = problem.targets, problem.live
    return _token_loss(problem._replace(targets=None, live=None), operands, constant, loss, options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _token_loss(problem: Problem, operands, constant, loss: Loss, options: Options) -> jax.Array:
    return _everywhere(problem, operands, constant, loss, options, False)[0]


def _forward(problem: Problem, operands, constant, loss: Loss, options: Options):
    return _everywhere(problem, operands, constant, loss, options, True)


def _backward(loss: Loss, options: Options, found, cotangent):
    return *jax.tree.map(lambda g: (g * cotangent).astype(g.dtype), found), None


_token_loss.defvjp(_forward, _backward)


def _everywhere(problem: Problem, operands, constant, loss: Loss, options: Options, gradient: bool):
    """The loss, and its gradients if they are asked for, on every device of a mesh."""
    of_rows, of_problem = frame.partition(problem, options)
    in_rows = functools.partial(jax.tree.map, lambda _: of_rows)
    out = P(), (of_problem, in_rows(operands)) if gradient else ()
    local = functools.partial(_local, loss, options, gradient)
    return frame.on_mesh(local, options, (of_problem, in_rows(operands), in_rows(constant)), out)(
        problem, operands, constant
    )


def _local(loss: Loss, options: Options, gradient: bool, problem: Problem, operands: Any, constant: Any):
    given, (problem, order) = (problem, operands), frame.complete(problem, constant, options)
    if order is not None:
        operands = jax.tree.map(lambda x: x[order], operands)
        problem = problem._replace(live=jnp.arange(problem.head.rows)[:, None] < problem.count)
    chunk = functools.partial(_chunk, loss, options, gradient)
    size, count = rows.sizes(problem, options.size)
    ones = jnp.ones((size, 1), bool)
    shapes = jax.eval_shape(lambda: chunk(rows.slice_of(problem, 0, size), rows.slice_rows(operands, 0, size), ones))
    shapes = shapes[0], rows.widened(shapes[1], problem), shapes[2]

    def step(start: Any, fresh: Any, found: Any, part: Problem) -> Any:
        total, of_rows, summed = chunk(part, rows.slice_rows(operands, start, size), fresh)
        return found[0] + total, rows.write(found[1], of_rows, start), jax.tree.map(jnp.add, found[2], summed)

    found = rows.loop(problem, size, count, step, to_bits(zeros_like(shapes, problem, operands)))
    total, of_rows, summed = from_bits(found, shapes)
    total = frame.psum(total, options.batch_axes) if options.batch_axes else total
    if not gradient:
        return total, ()
    gradients, doperands = rows.union(of_rows[0], summed), of_rows[1]
    if order is not None:
        back = jnp.argsort(order)
        gradients, doperands = frame.permute(gradients, back), jax.tree.map(lambda x: x[back], doperands)
    return total, (frame.typed(frame.collected(gradients, options), given[0]), doperands)


def _chunk(loss: Loss, options: Options, gradient: bool, part: Problem, operands: Any, fresh: jax.Array):
    """Loss of the ``fresh`` rows; gradients of all rows, and those that are summed over fresh ones."""
    spec = options.spec
    sums = frame.merged(rows.look(part, spec, options.vocab_axis), part, options)
    live = jnp.ones_like(fresh) if part.live is None else part.live

    def losses(found: dict[str, jax.Array], operands: Any) -> jax.Array:
        return jnp.where(live[:, 0], loss(found, operands), 0)

    values, pull = jax.vjp(losses, {k: v[:, 0] for k, v in core.finalise(sums, spec).items()}, operands)
    total = jnp.where(fresh[:, 0], values, 0).sum()
    if not gradient:
        return total, (), ()
    dfound, doperands = pull(jnp.ones_like(values))
    of_rows = gradients.gradient(sums, spec, {name: g[:, None] for name, g in dfound.items()})
    # The same product as in the look: the compiler computes it once.
    own, summed = rows.pull(part, of_rows, spec, fresh)
    return total, (own, doperands), summed

"""Which body works on a problem, and in what sizes: by platform and by bytes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rlx_kernels import columns, core, frame, gradients
from rlx_kernels.frame import Options
from rlx_kernels.problem import Problem

IMPLEMENTATIONS = ("xla", "tpu", "hopper", "reference")
KERNELS = {"tpu": "tpu", "gpu": "hopper", "cuda": "hopper"}
"""The kernel that a platform tries first; what it declines is left to XLA."""


def pick_rows(vocab: int, *, product: bool = True, platform: str | None = None) -> int:
    """Rows of a chunk by the bytes of its logits: cache and page faults count on a CPU, product size elsewhere.

    Given logits need no product: on a CPU few rows, so that every pass but the first finds them in the cache.

    >>> pick_rows(8192, platform="cpu"), pick_rows(151936, platform="cpu"), pick_rows(151936, platform="gpu")
    (256, 96, 880)
    >>> pick_rows(151936, product=False, platform="cpu")
    8
    """
    platform = platform or jax.default_backend()
    low, high, budget = (96, 256, 32 << 20) if platform == "cpu" else (512, 8192, 512 << 20)
    if not product and platform == "cpu":
        low, high, budget = 8, 1 << 20, 8 << 20
    return min(max(budget // (4 * vocab) // 8 * 8, low), high)


def pick_columns(rows: int, *, platform: str | None = None) -> int:
    """Columns of a chunk of the vocabulary by the bytes of its logits, a multiple of 128.

    >>> pick_columns(2048, platform="cpu"), pick_columns(4096, platform="gpu")
    (1024, 16384)
    """
    platform = platform or jax.default_backend()
    low, budget = (512, 8 << 20) if platform == "cpu" else (2048, 256 << 20)
    return max(budget // (4 * max(rows, 1)) // 128 * 128, low)


def plan(
    problem: Problem,
    spec: core.Spec,
    implementation: str | None = None,
    *,
    mesh: Mesh | None = None,
    batch_axes: tuple[str, ...] = (),
    vocab_axis: str | None = None,
    rows: int | None = None,
    tied: bool = False,
) -> Options:
    """Options for a problem of global arrays; ``tied``: the weights are the transpose of an embedding.

    Raises:
        NotImplementedError: the implementation asked for declines; the message says why.
    """
    options = Options(spec, mesh=mesh, batch_axes=batch_axes, vocab_axis=vocab_axis)
    local, platform = _local(problem, options), _platform(mesh)
    kernel = KERNELS.get(platform) if implementation is None else implementation
    if kernel in KERNELS.values():
        try:
            _try(local, options._replace(body=kernel, mesh=None))
            return options._replace(body=kernel)
        except NotImplementedError:
            if implementation is not None:
                raise
    if rows is None and _by_columns(local, spec, platform):
        return options._replace(body="columns", tied=tied, size=pick_columns(local.head.rows, platform=platform))
    return _in_rows(local, options, rows)


def plan_rows(problem: Problem, spec: core.Spec, *, rows: int | None = None, **places: Any) -> Options:
    """As :func:`plan`, always in chunks of rows."""
    options = Options(spec, **places)
    return _in_rows(_local(problem, options), options, rows)


def _in_rows(local: Problem, options: Options, rows: int | None) -> Options:
    product, platform = local.head.logits is None, _platform(options.mesh)
    return options._replace(size=rows or pick_rows(local.head.columns, product=product, platform=platform))


def _platform(mesh: Mesh | None) -> str:
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def _by_columns(problem: Problem, spec: core.Spec, platform: str) -> bool:
    """Whether to work in chunks of the vocabulary: they move fewer bytes, but cannot skip masked rows.

    Each reads the hidden states and writes its part of the gradient of the weights once; a chunk of rows reads all of
    the weights and adds to all of their gradient.
    """
    try:
        columns.check(problem, spec)
    except NotImplementedError:
        return False
    return platform != "cpu" or problem.live is None


def _local(problem: Problem, options: Options) -> Problem:
    """Shapes of what one device holds."""
    mesh = options.mesh
    if mesh is None:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), problem)
    of_rows, specs = frame.partition(problem, options)
    specs = specs._replace(targets=of_rows, live=None if problem.live is None else of_rows)

    def shape(x, spec):
        axes = [(axis,) if isinstance(axis, str) else axis or () for axis in spec]
        axes += [()] * (len(x.shape) - len(axes))
        sizes = (math.prod(mesh.shape[name] for name in names) for names in axes)
        return jax.ShapeDtypeStruct(tuple(n // size for n, size in zip(x.shape, sizes, strict=True)), x.dtype)

    return jax.tree.map(shape, problem, specs)


def _try(problem: Problem, options: Options) -> None:
    """Traces both directions of a body, which raises NotImplementedError where the body declines."""

    def both(problem: Problem) -> Problem:
        body = frame.body_of(options)
        sums = body.forward(problem._replace(offset=0))
        ones = {name: jnp.ones_like(sums.s) for name in options.spec.statistics}
        return body.backward(problem._replace(offset=0), gradients.gradient(sums, options.spec, ones))

    jax.eval_shape(both, problem)

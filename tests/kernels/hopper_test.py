"""The Mosaic GPU body: what depends on its tiles, shares, chunks and on rows that do not count.

With a jax that has ``InterpretGPUParams`` (0.11 and newer) the kernels run in its interpreter and meet float64. Before,
the interpreter is private and incomplete: there the same problems are lowered for CUDA, no number is looked at.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from rlx_kernels import core, gradients, hopper, hopper_head, hopper_product
from rlx_kernels import hopper_tiles as tiles
from rlx_kernels.problem import Head, Problem, logits_of

INTERPRETER = plgpu.InterpretGPUParams() if hasattr(plgpu, "InterpretGPUParams") else None
SINGLE = ("logp", "entropy", "lse", "mean", "variance", "max_logp", "renyi2", "entropy_change", "tsallis")
SMALL = {
    "logits": {"columns": 128, "blocks": 4},
    "product": {"columns": 64, "epilogue": 64, "stages": 2, "processors": 2, "chunk_bytes": 1},
}


@pytest.fixture
def small(monkeypatch):
    """Blocks so small that a little problem has several tiles, shares of the vocabulary and chunks."""
    monkeypatch.setattr(tiles, "sizes", lambda: SMALL)


def normal(seed, *shape, scale=3.0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * scale, dtype)


def given(logits, **more):
    n, v = logits.shape
    targets = jnp.asarray(np.random.default_rng(9).integers(0, v, (n, 1)), jnp.int32)
    return Problem(Head(logits=logits), **{"targets": targets, "offset": jnp.int32(0)} | more)


def product(n, d, v, *, bias=False, **more):
    x, w = normal(0, n, d, scale=1, dtype=jnp.bfloat16), normal(1, d, v, scale=3 / d**0.5, dtype=jnp.bfloat16)
    head = Head(x=x, w=w, bias=normal(2, v, scale=1, dtype=jnp.bfloat16) if bias else None)
    targets = jnp.asarray(np.random.default_rng(9).integers(0, v, (n, 1)), jnp.int32)
    return Problem(head, **{"targets": targets, "offset": jnp.int32(0)} | more)


@functools.partial(jax.jit, static_argnums=2)
def exact(problem, cotangents, spec):
    """Statistics and gradients in float64, rows that do not count without a gradient."""
    wide = jax.tree.map(lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, problem)
    head, n = wide.head, wide.head.rows
    columns = wide.offset + jnp.arange(head.columns)
    z = logits_of(wide, head, spec)
    other = None if wide.other is None else logits_of(wide, wide.other, spec)
    x = core.sums(z, spec, columns=columns, targets=wide.targets, y=wide.y, other=other)
    rows = gradients.gradient(x, spec, {k: g.astype(jnp.float64) for k, g in cotangents.items()})
    raw = logits_of(wide, head, core.Spec(()))
    found = gradients.dlogits(z, rows, spec, columns=columns, targets=wide.targets, y=wide.y, other=other)
    counted = jnp.ones((n, 1), bool) if wide.live is None else wide.live
    counted = counted if wide.count is None else counted & (jnp.arange(n)[:, None] < wide.count)
    dz, dy, dother = (None if d is None else jnp.where(counted, d, 0) for d in found)
    dz = core.transform_gradient(dz, raw, spec.temperature, spec.softcap)
    if dother is not None:
        dother = core.transform_gradient(dother, wide.other.logits, spec.temperature, spec.softcap)
    dhead = Head(logits=dz)
    if head.x is not None:
        dhead = Head(x=dz @ head.w.T, w=head.x.T @ dz, bias=None if head.bias is None else dz.sum(0))
    return core.finalise(x, spec), Problem(dhead, y=dy, other=None if dother is None else Head(logits=dother))


@functools.partial(jax.jit, static_argnums=(2, 3))
def run(problem, cotangents, spec, interpret):
    """Statistics and gradients by the kernels."""
    x = hopper.forward(problem, spec, interpret=interpret)
    rows = gradients.gradient(x, spec, cotangents)
    return core.finalise(x, spec), hopper.backward(problem, rows, spec, interpret=interpret)


def lowers(problem, spec):
    """Both kernels reach Mosaic's compiler."""
    ones = {name: jnp.ones((problem.head.rows, 1)) for name in spec.statistics}
    text = run.trace(problem, ones, spec, None).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("mosaic_gpu_v2") >= 2


def close(got, want, atol, rtol, where=slice(None)):
    """Within ``atol``, or with ``rtol`` near in the Euclidean norm; infinities in the same places."""
    got, want = np.asarray(got, np.float64)[where], np.asarray(want)[where]
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    got, want = got[finite], want[finite]
    assert np.abs(got - want).max(initial=0) <= atol or np.linalg.norm(got - want) <= rtol * np.linalg.norm(want)


def check(problem, spec, *, atol=2e-6, rtol=2e-6, clean=None):
    """Meets float64, or lowers for CUDA; ``clean`` is the problem without what must not be looked at."""
    if INTERPRETER is None:
        return lowers(problem, spec)
    n = problem.head.rows
    cotangents = {name: normal(i, n, 1, scale=1) for i, name in enumerate(spec.statistics)}
    x, got = run(problem, cotangents, spec, INTERPRETER)
    rows = slice(None) if problem.count is None else slice(int(problem.count))
    with jax.enable_x64(True):
        values, want = exact(clean or problem, cotangents, spec)
    alive = rows if problem.live is None else np.asarray(problem.live[:, 0])
    for name in spec.statistics:
        close(x[name], values[name], atol, 2e-6, alive)
    for d, wanted in ((got.head.logits, want.head.logits), (got.head.x, want.head.x)):
        if d is not None:
            close(d, wanted, 0, rtol, rows)
    for d, wanted in ((got.head.w, want.head.w), (got.head.bias, want.head.bias), (got.y, want.y)):
        if d is not None:
            close(d, wanted, 0, rtol)
    if got.other is not None:
        close(got.other.logits, want.other.logits, 0, rtol)
    return got


@pytest.mark.parametrize("columns", [300, 299])
def test_every_statistic_of_logits_cut_in_tiles_and_shares(small, columns):
    check(given(normal(0, 6, columns)), core.Spec(SINGLE))


def test_soft_cap_temperature_and_a_shard_that_begins_later(small):
    problem = given(normal(0, 5, 200, dtype=jnp.bfloat16), offset=jnp.int32(1000))
    problem = problem._replace(targets=problem.targets + jnp.array([[1000]] * 4 + [[0]]))
    check(problem, core.Spec(("logp", "entropy", "max_logp"), temperature=0.7, softcap=5.0), rtol=4e-3)


def test_a_common_offset_costs_no_precision(small):
    z = jnp.round(normal(0, 4, 160) * 256) / 256  # numbers that float32 holds beside 1000, too
    check(given(z + 1000), core.Spec(("logp", "entropy", "variance")))


def test_impossible_tokens_and_saturated_rows(small):
    z = normal(0, 6, 200).at[:, 20:180].set(-jnp.inf).at[0].set(-jnp.inf).at[1, 7].set(90.0)
    check(given(z, targets=jnp.full((6, 1), 7)), core.Spec(SINGLE))


def test_rows_that_get_no_gradient_may_hold_anything(small):
    live = jnp.arange(6)[:, None] != 2
    z = normal(0, 6, 160)
    got = check(given(z.at[2].set(jnp.nan), live=live), core.Spec(("logp", "entropy")), clean=given(z, live=live))
    assert got is None or not got.head.logits[2].any()


def test_two_policies_and_numbers_of_the_tokens(small):
    problem = given(normal(0, 5, 160), other=Head(logits=normal(1, 5, 160)), y=normal(2, 5, 160))
    check(problem, core.Spec(("logp", "covariance", "kl", "reverse_kl")))


def test_every_statistic_of_a_product_cut_in_tiles_shares_and_chunks(small):
    check(product(20, 64, 150), core.Spec(SINGLE), rtol=4e-3)


def test_product_with_bias_soft_cap_and_a_ragged_width(small):
    spec = core.Spec(("logp", "entropy"), temperature=0.7, softcap=20.0)
    check(product(130, 40, 70, bias=True), spec, rtol=4e-3)


def test_rows_of_a_product_beyond_the_count_are_not_looked_at(small):
    clean = product(140, 64, 64, count=jnp.int32(20))
    head = clean.head._replace(x=clean.head.x.at[20:].set(jnp.nan))
    check(clean._replace(head=head), core.Spec(("logp", "entropy")), rtol=4e-3, clean=clean)


def test_lowers_for_cuda_with_the_sizes_of_the_device():
    spec = core.Spec(("logp", "entropy"))
    lowers(given(normal(0, 5, 3000, dtype=jnp.bfloat16)), spec)
    lowers(product(40, 128, 1000), spec)


def test_shared_memory_holds_the_slices():
    size = tiles.sizes()["product"]
    slices = (hopper_product.BLOCK + size["columns"]) * hopper_product.UNIT * 2 * size["stages"]
    results = hopper_product.BLOCK * size["epilogue"] * 2
    assert slices + results <= 227 * 1024 - 1024  # barriers take a little


@pytest.mark.parametrize(("rows", "width", "vocabulary"), [(8192, 4096, 151936), (20, 64, 150), (1 << 20, 4096, 32768)])
def test_chunks_fit_the_budget(rows, width, vocabulary):
    size, step = hopper_head.chunk_size(rows, width, vocabulary), tiles.sizes()["product"]
    assert 0 < size <= vocabulary
    assert size <= step["columns"] or size * (2 * rows + 4 * width) <= step["chunk_bytes"]


@pytest.mark.parametrize(
    ("change", "spec", "reason"),
    [
        ({}, {"statistics": ("js",)}, "sweep a row once: no js"),
        ({"temperature": jnp.ones((5, 1))}, {}, "temperature that is a number"),
        ({"y": jnp.ones((1, 64))}, {}, "not one row"),
        ({"head": Head(logits=jnp.ones((3, 64)))}, {}, "need 4 rows and 32 tokens, not 3 and 64"),
        ({"head": Head(logits=jnp.ones((5, 64), jnp.float8_e4m3fn))}, {}, "not float8_e4m3fn"),
        ({"head": Head(x=jnp.ones((5, 64)), w=jnp.ones((64, 64)))}, {}, "multiply bfloat16, not float32 by float32"),
    ],
)
def test_declines_in_a_line(change, spec, reason):
    with pytest.raises(NotImplementedError, match=reason):
        hopper.forward(given(normal(0, 5, 64))._replace(**change), core.Spec(**{"statistics": ("logp",)} | spec))


def test_declines_a_second_policy_with_a_product():
    with pytest.raises(NotImplementedError, match="with given logits only"):
        hopper.forward(product(5, 64, 64, y=jnp.ones((5, 64))), core.Spec(("covariance",)))


@pytest.mark.parametrize(
    ("capability", "accepted"),
    [("8.0", ()), ("9.0", ("logits", "product")), ("10.0", ("logits",)), ("gfx942", ()), (None, ())],
)
def test_declines_devices_without_the_instructions(monkeypatch, capability, accepted):
    device = types.SimpleNamespace(device_kind="some GPU", compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [device])
    for name, problem in {"logits": given(normal(0, 5, 64)), "product": product(5, 64, 64)}.items():
        trace = functools.partial(jax.eval_shape, lambda p: hopper.forward(p, core.Spec(("entropy",))), problem)
        if name in accepted:
            assert trace().s.shape == (5, 1)
        else:
            with pytest.raises(NotImplementedError, match="compute capability 9.* not some GPU"):
                trace()

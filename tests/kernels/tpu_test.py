"""The TPU body: what depends on its blocks, on rows that do not count, and on the device.

Kernels run in an interpreter whose memory is NaN until written and which looks for races. What no interpreter can say,
that they compile for a TPU and in how much memory, is checked by ``kernels/aot/compile.py``.
"""

import functools
import json
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from rlx_kernels import core, gradients, reference, tpu
from rlx_kernels import tpu_tiles as tiles
from rlx_kernels.problem import Head, Problem

INTERPRETER = pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True)
KERNELS = ("logits_forward", "logits_backward", "product_forward", "product_dx", "product_dw")
SPEC = core.Spec(("logp", "entropy"))
N, V = 40, 300  # three blocks of rows, three of columns, the last ones stick out
DEEP = Head(x=np.zeros((N, 1 << 16), np.float32), w=np.zeros((1 << 16, V), np.float32))


@pytest.fixture
def small(monkeypatch):
    """The smallest blocks."""
    monkeypatch.setattr(tiles, "sizes", lambda: {"vmem_mib": 60} | dict.fromkeys(KERNELS, [16, 128]))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def targets_of(n, v):
    return np.random.default_rng(9).integers(0, v, (n, 1)).astype(np.int32)


def given(**more) -> Problem:
    return Problem(**{"head": Head(logits=3 * normal(0, N, V)), "targets": targets_of(N, V), "offset": 0} | more)


def product(depth, v=V, **more) -> Problem:
    head = Head(x=normal(0, N, depth), w=3 * normal(1, depth, v) / depth**0.5, bias=normal(2, v))
    return Problem(**{"head": head, "targets": targets_of(N, v), "offset": 0} | more)


def run(problem, spec=SPEC):
    """Statistics, and the gradient of their sum with a weight for each row."""

    @jax.jit
    def both(problem):
        sums = tpu.forward(problem, spec, interpret=INTERPRETER)
        weights = dict.fromkeys(spec.statistics, jnp.arange(1.0, 1 + problem.head.rows)[:, None])
        rows = gradients.gradient(sums, spec, weights)
        return core.finalise(sums, spec), tpu.backward(problem, rows, spec, interpret=INTERPRETER)

    return both(jax.tree.map(jnp.asarray, problem))


def exact(problem, spec=SPEC, live=None):
    """The same in float64 by autodiff; rows that are not live have no weight."""
    weights = np.arange(1.0, 1 + problem.head.rows) * (True if live is None else live)

    def loss(arrays):
        out = reference.of_problem(arrays._replace(targets=problem.targets), spec)
        return sum((weights * value).sum() for value in out.values()), out

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), problem._replace(targets=None, offset=None))
        return jax.tree.map(np.asarray, jax.grad(loss, has_aux=True)(wide)[::-1])


def assert_close(got: Problem, want: Problem):
    """All gradients that autodiff gives, in the Euclidean norm."""
    for path, entry in jax.tree_util.tree_leaves_with_path(want):
        found = functools.reduce(lambda tree, key: getattr(tree, key.name), path, got)
        assert np.linalg.norm(found - entry) <= 2e-6 * np.linalg.norm(entry), jax.tree_util.keystr(path)


@pytest.mark.parametrize("depth", [20, 128])
def test_weights_of_both_layouts(small, capfd, depth):
    """128 and 300 make a TPU store the weights with the vocabulary first, 20 and 300 do not."""
    problem = product(depth)
    (out, got), (want, gradient) = run(problem), exact(problem)
    for name in SPEC.statistics:
        np.testing.assert_allclose(out[name][:, 0], want[name], atol=5e-6)
    assert_close(got, gradient)
    assert "RACE" not in capfd.readouterr().out


@pytest.mark.parametrize("masked", ["count", "live"])
@pytest.mark.parametrize("kind", ["logits", "product"])
def test_rows_that_do_not_count(small, kind, masked):
    """Whatever they hold, they get no gradient and give none to what rows share."""
    live = np.arange(N) < 18 if masked == "count" else np.arange(N) % 3 > 0
    more = {"count": np.int32(18)} if masked == "count" else {"live": live[:, None]}
    spec = SPEC
    if kind == "logits":
        spec = SPEC._replace(statistics=(*SPEC.statistics, "covariance"))
        clean = given(y=normal(3, 1, V))
        dirty = clean.head._replace(logits=np.where(live[:, None], clean.head.logits, np.nan))
    else:
        clean = product(20)
        dirty = clean.head._replace(x=np.where(live[:, None], clean.head.x, np.nan))
    got = run(clean._replace(head=dirty, **more), spec)[1]
    assert_close(got, exact(clean, spec, live)[1])
    of_rows = got.head.logits if kind == "logits" else got.head.x
    assert (np.asarray(of_rows)[~live] == 0).all()


def test_shards_of_the_vocabulary(small):
    """Each knows the targets and the first maximum of its own part; merged they know all.

    Targets of the other part may be tokens that the last block of this one has beyond its edge.
    """
    spec = core.Spec(("logp", "max_logp"))
    whole = product(20)
    half = [
        whole._replace(head=whole.head._replace(w=whole.head.w[:, k : k + 150], bias=whole.head.bias[k : k + 150]))
        for k in (0, 150)
    ]
    parts = [tpu.forward(p._replace(offset=150 * k), spec, interpret=INTERPRETER) for k, p in enumerate(half)]
    merged = core.merge(*parts, spec)
    want = tpu.forward(whole, spec, interpret=INTERPRETER)
    np.testing.assert_array_equal(merged.top, want.top)
    np.testing.assert_array_equal(merged.t, want.t)
    np.testing.assert_allclose(merged.s, want.s, rtol=1e-6)


def test_what_is_not_finite_shows(small):
    """NaN and +inf make the statistics of their row NaN, nobody else's."""
    logits = 3 * normal(0, N, V)
    logits[0, 5], logits[1, 299] = np.inf, np.nan
    out = core.finalise(tpu.forward(given(head=Head(logits=logits)), SPEC, interpret=INTERPRETER), SPEC)
    for value in out.values():
        np.testing.assert_array_equal(np.isnan(value[:, 0]), np.arange(N) < 2)


@pytest.mark.parametrize(
    ("problem", "spec", "reason"),
    [
        (given(), core.Spec(("top_p_entropy", "js")), "sweep a row once: no top_p_entropy, js"),
        (given(temperature=np.ones((N, 1), np.float32)), SPEC, "a temperature that is a number"),
        (given(head=Head(logits=np.zeros((N, V), np.float16))), SPEC, "need bfloat16 or float32, not float16"),
        (given(other=product(20).head), core.Spec(("kl",)), "other policy as logits"),
        (product(20, y=normal(3, N, V)), core.Spec(("covariance",)), "neither y nor another policy"),
        (given(head=DEEP), SPEC, r"need \d+ MiB of VMEM for a block of 16 rows and 128 tokens, 60 are there"),
    ],
)
def test_declines_with_a_reason(problem, spec, reason):
    with pytest.raises(NotImplementedError, match=f"^tpu kernels.*{reason}"):
        jax.eval_shape(lambda p: tpu.forward(p, spec), problem)


def test_sizes_are_those_of_the_device(monkeypatch):
    """By its kind; a device that nobody compiled for gets blocks that fit all."""
    table = json.loads((pathlib.Path(tiles.__file__).parent / "sizes" / "tpu.json").read_text())
    assert {"jax", "libtpu", "note"} < set(table)
    for kind in ("TPU v5 lite", "TPU v5", "TPU v6 lite"):
        monkeypatch.setattr(jax, "devices", lambda kind=kind: [types.SimpleNamespace(device_kind=kind)])
        assert tiles.sizes() == table["devices"][kind]
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind="TPU v9")])
    assert tiles.sizes()["vmem_mib"] == min(entry["vmem_mib"] for entry in table["devices"].values())


def test_blocks_are_halved_until_they_fit(monkeypatch):
    """The longer side first, never below what every type of number allows."""
    sizes = {"vmem_mib": 8} | dict.fromkeys(KERNELS, [256, 1024])
    monkeypatch.setattr(tiles, "sizes", lambda: sizes)
    assert tiles.tiling(1000, 5000, "product_dx", tile=4)[2:4] == (256, 1024)
    assert tiles.tiling(1000, 5000, "product_dx", tile=4, column=8192)[2:4] == (256, 512)
    assert tiles.tiling(1000, 5000, "product_dx", tile=4, row=1 << 17)[2:4] == (32, 128)
    assert tiles.tiling(13, 99, "product_dx", tile=4)[2:4] == (16, 128)


@pytest.mark.parametrize(("depth", "vocabulary"), [(256, 1280), (256, 1300)])
def test_nothing_as_large_as_the_logits(depth, vocabulary):
    """Lowered for a TPU without one: three kernels, no array of logits, gradients in the type of the inputs."""
    x, w = jnp.zeros((640, depth), jnp.bfloat16), jnp.zeros((depth, vocabulary), jnp.bfloat16)

    def both(x, w):
        problem = Problem(Head(x=x, w=w), jnp.zeros((640, 1), jnp.int32), offset=0)
        sums = tpu.forward(problem, SPEC)
        ones = dict.fromkeys(SPEC.statistics, jnp.ones((640, 1)))
        return tpu.backward(problem, gradients.gradient(sums, SPEC, ones), SPEC).head[1:3]

    text = jax.jit(both).trace(x, w).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == 3
    assert not re.search(f"tensor<(640x{vocabulary}|{vocabulary}x640)x", text)
    assert f"-> (tensor<640x{depth}xbf16>" in text


def test_is_imported_only_when_used():
    code = "import sys, rlx_kernels.dispatch; sys.exit('jax.experimental.pallas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0

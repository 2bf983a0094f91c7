"""One class runs every body, values and gradients, against the oracle in float64.

Kernels run in interpreters: that of TPUs with memory that is NaN until written, and a race detector; that of Hopper
with a jax that has it (0.11 and newer), before that its kernels are lowered for CUDA and no number is looked at.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.experimental.pallas import tpu as pltpu

from rlx_kernels import core, frame, hopper_tiles, reference, tpu_tiles
from rlx_kernels.frame import Options
from rlx_kernels.problem import Head, Problem

SINGLE = tuple(name for name in core.STATISTICS if name not in (*core.WHOLE_ROW, *core.PAIRED, "covariance"))
POINTWISE = (*SINGLE, "covariance", "kl", "reverse_kl")
BODIES = {
    "rows": Options(core.Spec(()), "rows", 5),
    "columns": Options(core.Spec(()), "columns", 128),
    "tpu": Options(
        core.Spec(()), "tpu", interpret=pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True)
    ),
    "hopper": Options(
        core.Spec(()), "hopper", interpret=plgpu.InterpretGPUParams() if hasattr(plgpu, "InterpretGPUParams") else None
    ),
}
SPECS = {
    "random": core.Spec(()),
    "offset": core.Spec(()),
    "soft-capped": core.Spec((), temperature=0.7, softcap=20.0),
    "impossible": core.Spec(()),
    "saturated": core.Spec(()),
    "half": core.Spec(()),
}
ROWS, WIDTH = 13, 64  # neither is a multiple of a block, nor is the vocabulary
VOCAB = {"rows": 299, "columns": 299, "tpu": 299, "hopper": 200}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So small that a little problem has several blocks, shares and chunks."""
    table = tpu_tiles.sizes()
    small = {name: [16, 128] if isinstance(value, list) else value for name, value in table.items()}
    monkeypatch.setattr(tpu_tiles, "sizes", lambda: small)
    logits = {"columns": 64, "blocks": 4}
    product = {"columns": 64, "epilogue": 64, "stages": 2, "processors": 2, "chunk_bytes": 1}
    monkeypatch.setattr(hopper_tiles, "sizes", lambda: {"logits": logits, "product": product})


def given_logits(case: str, vocab: int) -> Problem:
    """Logits, numbers of the tokens and the logits of another policy."""
    rng = np.random.default_rng(0)
    z, y, other = (rng.normal(size=(ROWS, vocab)) * scale for scale in (3, 1, 3))
    if case == "offset":
        z = np.round(z * 64) / 64 + 1024  # exact in float32
    if case == "soft-capped":
        z = z * 4
    if case == "impossible":
        z[:, vocab // 4 : -vocab // 4] = other[:, vocab // 4 : -vocab // 4] = -np.inf
        z[0] = other[0] = -np.inf
    if case == "saturated":
        z[1, 7] = z[2, 3] = 80
    targets = rng.integers(0, vocab // 4, (ROWS, 1))
    return typed(Problem(Head(logits=z), targets, other=Head(logits=other), y=y), case)


def given_product(case: str, vocab: int) -> Problem:
    """Hidden states, weights and a bias."""
    rng = np.random.default_rng(0)
    x, w, bias = rng.normal(size=(ROWS, WIDTH)), rng.normal(size=(WIDTH, vocab)) * 0.4, rng.normal(size=vocab)
    if case == "offset":
        bias = bias + 1000
    if case == "soft-capped":
        x = x * 4
    if case == "impossible":
        bias[vocab // 4 : -vocab // 4] = -np.inf
    if case == "saturated":
        x[1] = 30 * w[:, 7] / np.linalg.norm(w[:, 7])
    targets = rng.integers(0, vocab // 4, (ROWS, 1))
    return typed(Problem(Head(x=x, w=w, bias=bias), targets), case)


def typed(problem: Problem, case: str) -> Problem:
    """Arrays of the case: in half precision the numbers that the oracle sees are rounded, too."""
    dtype = jnp.bfloat16 if case == "half" else jnp.float32
    kinds = {"i": jnp.int32, "f": dtype}
    return jax.tree.map(lambda x: jnp.asarray(x, kinds[x.dtype.kind]), problem)


def cotangents(names) -> dict:
    """A different weight for each row and statistic."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=ROWS) for name in names}


def value_and_gradient(function, problem: Problem, names):
    """Statistics and the gradient of a weighted sum of them, where finite."""

    def loss(arrays):
        out = function(arrays._replace(targets=problem.targets))
        return sum(jnp.where(jnp.isfinite(out[k]), g * out[k], 0).sum() for k, g in cotangents(names).items()), out

    return jax.jit(jax.grad(loss, has_aux=True))(problem._replace(targets=None))[::-1]


@functools.cache
def exact(case: str, kind: str, vocab: int, names: tuple[str, ...]):
    """What the oracle says in float64."""
    problem = (given_logits if kind == "logits" else given_product)(case, vocab)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype != jnp.int32 else x, problem)
        spec = SPECS[case]._replace(statistics=names)
        out, gradient = value_and_gradient(lambda p: reference.of_problem(p, spec), wide, names)
    return jax.tree.map(np.asarray, (out, gradient))


def distance(got, want) -> float:
    """Relative, in the Euclidean norm."""
    got, want = np.asarray(got, np.float64), np.asarray(want)
    return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30))


class TestEveryBody:
    """Every body, every statistic it has, given logits and hidden states."""

    def names(self, body: str, kind: str) -> tuple[str, ...]:
        if body == "rows":
            return core.STATISTICS if kind == "logits" else (*SINGLE, "top_p_entropy", "top_k_entropy")
        return SINGLE if kind == "product" else POINTWISE

    def check(self, body: str, case: str, kind: str) -> None:
        names, vocab = self.names(body, kind), VOCAB[body]
        problem = (given_logits if kind == "logits" else given_product)(case, vocab)
        if body == "hopper" and kind == "product":
            names = tuple(name for name in names if name != "covariance")
        spec = SPECS[case]._replace(statistics=names)
        options = BODIES[body]._replace(spec=spec)
        want, want_gradient = exact(case, kind, vocab, names)
        call = functools.partial(frame.statistics, options=options)
        if body == "hopper" and options.interpret is None:
            out = jax.jit(call).trace(problem).lower(lowering_platforms=("cuda",)).as_text()
            assert "mosaic_gpu" in out
            return
        out, gradient = value_and_gradient(call, problem, names)
        # A float32 product of about 1000 is rounded by 6e-5 before any statistic.
        rounded = case == "offset" and kind == "product"
        for name in names:
            atol = 3e-4 if rounded else 2e-6 if name in ("logp", "entropy") else 5e-6
            magnitude = np.abs(want[name][np.isfinite(want[name])]).max(initial=1)
            np.testing.assert_allclose(out[name], want[name], rtol=0, atol=atol * magnitude, err_msg=name)
        assert (out["logp"] <= 0).all() and (out["entropy"] >= 0).all()
        # A probability e^u errs by |u| times the rounding of a number: u reaches 60 where logits are that far apart.
        rtol = {"half": 4e-3, "soft-capped": 8e-6}.get(case, 3e-4 if rounded else 3e-6)
        for path, got in jax.tree_util.tree_leaves_with_path(gradient):
            entry = functools.reduce(lambda tree, key: getattr(tree, key.name), path, want_gradient)
            assert distance(got, entry) <= rtol, jax.tree_util.keystr(path)

    @pytest.mark.parametrize("case", SPECS)
    @pytest.mark.parametrize("body", [body for body in BODIES if body != "columns"])
    def test_given_logits(self, body, case):
        self.check(body, case, "logits")

    @pytest.mark.parametrize("case", SPECS)
    @pytest.mark.parametrize("body", [body for body in BODIES if body != "hopper"])
    def test_hidden_states(self, body, case):
        self.check(body, case, "product")

    @pytest.mark.parametrize("case", ["half"])
    def test_hidden_states_on_hopper(self, case):
        """Its tensor cores multiply half precision; float32 products are left to XLA."""
        self.check("hopper", case, "product")

    @pytest.mark.parametrize("body", ["rows", "tpu"])
    def test_gradient_of_logits_sums_to_zero(self, body):
        """Log-probability and entropies do not see a common offset of the logits."""
        names = ("logp", "entropy", "variance", "max_logp", "renyi2", "tsallis")
        problem = given_logits("random", 299)._replace(other=None, y=None)
        options = BODIES[body]._replace(spec=core.Spec(names))
        gradient = value_and_gradient(functools.partial(frame.statistics, options=options), problem, names)[1]
        np.testing.assert_allclose(gradient.head.logits.sum(-1), 0, atol=2e-6)

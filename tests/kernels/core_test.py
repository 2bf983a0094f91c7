"""Sums and their merge, the choice of the most probable tokens, and what the frame does with rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx_kernels import core, frame, most_probable, reference
from rlx_kernels.frame import Options
from rlx_kernels.problem import Head, Problem

N, D, V = 7, 5, 300


def problem(dtype=np.float32, **more):
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((N, D), (D, V)))
    return Problem(Head(x=x, w=w), jnp.asarray(rng.integers(0, V, (N, 1)), jnp.int32), **more)


def test_merge_equals_whole():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        z, other, y = (jnp.asarray(rng.normal(size=(N, 20)) * 5) for _ in range(3))
        z = z.at[0, :9].set(-jnp.inf)
        spec = core.Spec(tuple(name for name in core.STATISTICS if name not in core.WHOLE_ROW), order=1.5)
        targets, ids = jnp.full((N, 1), 11), jnp.arange(20)

        def part(cut):
            arrays = {"columns": ids[cut], "y": y[:, cut], "other": other[:, cut]}
            return core.sums(z[:, cut], spec, targets=targets, **arrays)

        merged = core.merge(part(slice(9)), part(slice(9, None)), spec)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), merged, part(slice(None)))


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_chunks_of_rows_change_nothing(size):
    with jax.enable_x64(True):
        wide, spec = problem(np.float64), core.Spec(("logp", "entropy", "top_p_entropy"))

        def run(function):
            def loss(head):
                return sum(x.sum() for x in function(wide._replace(head=head)).values())

            return jax.value_and_grad(loss)(wide.head)

        got = run(lambda p: frame.statistics(p, Options(spec, "rows", size)))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, run(lambda p: reference.of_problem(p, spec))
        )


@pytest.mark.parametrize("body", ["rows", "columns"])
def test_nan_and_bad_targets_stay_visible(body):
    given = problem()
    head = given.head._replace(x=given.head.x.at[0, 0].set(jnp.nan))
    given = given._replace(head=head, targets=given.targets.at[1].set(V).at[2].set(-1))
    out = frame.statistics(given, Options(core.Spec(("logp", "entropy")), body, 128 if body == "columns" else 3))
    np.testing.assert_array_equal(np.isnan(out["logp"]), np.arange(N) < 3)
    np.testing.assert_array_equal(np.isnan(out["entropy"]), np.arange(N) < 1)


def test_a_row_without_possible_tokens_is_defined():
    z = jnp.full((2, 30), -jnp.inf)
    given = Problem(Head(logits=z), jnp.zeros((2, 1), jnp.int32), other=Head(logits=z), y=jnp.ones((1, 30)))
    call = lambda p: frame.statistics(p, Options(core.Spec(core.STATISTICS)))  # noqa: E731
    for name, value in call(given).items():
        np.testing.assert_array_equal(value, -np.inf if name in ("logp", "lse", "max_logp") else 0, err_msg=name)
    loss = lambda z: sum(jnp.nan_to_num(x).sum() for x in call(given._replace(head=Head(logits=z))).values())  # noqa: E731
    assert not jax.grad(loss)(z).any()


def test_dead_rows_are_skipped_and_change_nothing():
    live = jnp.asarray([True, False, False, True, False, True, False])[:, None]
    spec = core.Spec(("logp", "entropy"))
    given = problem(live=live)
    given = given._replace(head=given.head._replace(x=jnp.where(live, given.head.x, 0)))

    def loss(head, live):
        out = frame.statistics(given._replace(head=head, live=live), Options(spec, "rows", 2))
        return sum(jnp.where(given.live[:, 0], x, 0).sum() for x in out.values())

    got, want = (jax.jit(jax.value_and_grad(loss))(given.head, rows) for rows in (live, None))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)


@pytest.mark.parametrize("rule", most_probable.RULES)
@pytest.mark.parametrize("top_p", [0.3, 0.8, 1.0])
def test_nucleus_without_sorting_equals_sorting(rule, top_p):
    """Rows with ties, negative zeros, impossible tokens; probabilities are multiples of 1/64, so sums are exact."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(64, np.full(16, 1 / 16), size=40)
    z = jnp.log(jnp.asarray(counts / 64))
    z = jnp.where(jnp.arange(40)[:, None] % 2 == 0, z, jnp.asarray(np.round(rng.normal(size=(40, 16)))) * -0.0 + z)
    p, ids = jnp.exp(z), jnp.arange(16)
    kept = core.Kept(*most_probable.most_probable(z, ids, 16, p, top_p - 1e-3, rule), p, p)
    want = reference.in_nucleus(z, top_p - 1e-3, rule) & (p > 0)
    np.testing.assert_array_equal(most_probable.is_kept(z, ids, kept), want)


def test_top_k_takes_exactly_k_of_equal_logits():
    z, ids = jnp.zeros((1, 10)), jnp.arange(10)
    kept = core.Kept(*most_probable.most_probable(z, ids, 10, jnp.ones_like(z), 4, "crossing"), z, z)
    np.testing.assert_array_equal(most_probable.is_kept(z, ids, kept)[0], ids < 4)


def test_half_precision_weights_in_chunks_of_the_vocabulary():
    """Written as integers on a CPU; the same numbers."""
    given = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, problem())

    def gradient(options):
        return jax.jit(jax.grad(lambda head: frame.statistics(given._replace(head=head), options)["logp"].sum()))(
            given.head
        )

    spec = core.Spec(("logp",))
    got, want = gradient(Options(spec, "columns", 128)), gradient(Options(spec, "rows", 64))
    assert got.w.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got.w, np.float32), np.asarray(want.w, np.float32), atol=0.02)


def test_the_gradient_of_a_tied_embedding_is_the_same():
    given = problem()
    spec = core.Spec(("logp", "entropy"))

    def gradient(embedding, tied):
        head = given.head._replace(w=embedding.T)
        out = frame.statistics(given._replace(head=head), Options(spec, "columns", 128, tied=tied))
        return out["logp"].sum() + out["entropy"].sum()

    embedding = given.head.w.T
    got, want = (jax.jit(jax.grad(gradient), static_argnums=1)(embedding, tied) for tied in (True, False))
    np.testing.assert_allclose(got, want, atol=1e-6)
    small = jax.jit(jax.grad(gradient), static_argnums=1).lower(embedding, True).compile().memory_analysis()
    large = jax.jit(jax.grad(gradient), static_argnums=1).lower(embedding, False).compile().memory_analysis()
    assert small.temp_size_in_bytes < large.temp_size_in_bytes

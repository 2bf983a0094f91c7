"""The transformer: shapes, padding, options that must not change the function, sharding rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rlx import models
from rlx.errors import UserError
from rlx.models.layers import attend

SMALL = {
    "name": "transformer", "vocab_size": 19, "hidden_size": 16, "num_layers": 2, "num_heads": 4,
    "num_kv_heads": 2, "intermediate_size": 24, "qkv_bias": True,
}  # fmt: skip
WIDTH = ("fsdp", "sequence")  # how the width of a parameter is split


def build(**options):
    return models.build(SMALL | options)


def shaken(model, seed=0):
    """Parameters with no zero and no symmetric entries: zero biases would hide mistakes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(p.dtype), model.init(seed))


def tokens(n=2, t=6):
    return np.random.default_rng(0).integers(0, 19, (n, t)).astype(np.int32)


def padded(side, pad=3):
    text = tokens()
    junk = np.full((len(text), pad), 7, np.int32)
    real, fake = np.ones(text.shape, bool), np.zeros(junk.shape, bool)
    parts = [(junk, fake), (text, real)] if side == "left" else [(text, real), (junk, fake)]
    return [jnp.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)]


@pytest.mark.parametrize("scan", [False, True])
def test_padding_side_changes_nothing(scan):
    with jax.enable_x64(True):
        model = build(dtype="float64", scan_layers=scan)
        params = shaken(model)
        apply = jax.jit(model.apply)
        want = apply(params, tokens())[0]
        left, right = (apply(params, *padded(side))[0] for side in ("left", "right"))
        np.testing.assert_allclose(left[:, 3:], want, atol=1e-12)
        np.testing.assert_allclose(right[:, :6], want, atol=1e-12)
        assert np.isfinite(left).all() and np.isfinite(right).all()


def test_gradients_ignore_what_padding_holds():
    model = build()
    params = shaken(model)
    text, valid = padded("left")

    def loss(params, text):
        return jnp.where(valid[..., None], model.apply(params, text, valid)[0] ** 2, 0).sum()

    gradient = jax.jit(jax.grad(loss))
    want, got = gradient(params, text), gradient(params, text.at[:, 0].set(11))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(want))


def test_future_tokens_are_invisible():
    model = build()
    params = shaken(model)
    changed = tokens()
    changed[:, 4:] = 3
    apply = jax.jit(model.apply)
    before, after = (apply(params, t)[0][:, :4] for t in (tokens(), changed))
    np.testing.assert_allclose(before, after, atol=1e-6)


@pytest.mark.parametrize("options", [{"scan_layers": True}, {"remat": "full"}, {"scan_layers": True, "remat": "full"}])
def test_execution_options_change_no_value_and_no_gradient(options):
    with jax.enable_x64(True):

        def run(**options):
            model = build(dtype="float64", **options)
            loss = jax.value_and_grad(lambda p: (model.apply(p, tokens())[0] ** 3).sum())
            value, gradient = jax.jit(loss)(model.init(0))
            return value, gradient["embedding"]

        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), run(**options), run())


def test_many_layers_run_in_order():
    """Layer 10 comes after layer 9, not after layer 1: a stack, which has no names, says so."""
    listed, stacked = build(num_layers=11), build(num_layers=11, scan_layers=True)

    def run(model):
        loud = jax.tree.map(lambda p: 10 * p, model.init(0))  # so that the order of layers shows
        return jax.jit(model.apply)(loud, tokens())[0]

    np.testing.assert_allclose(run(listed), run(stacked), rtol=1e-4, atol=1e-3)


def test_rotation_is_relative():
    """Scores depend on distances only: a shift of all positions changes nothing."""
    from rlx.models.layers import rotary_tables, rotate

    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 8)))
        first, second = (
            rotate(x, *rotary_tables(jnp.arange(5)[None] + start, 8, 100.0, "float64")) for start in (0, 9)
        )
        scores = [jnp.einsum("bhtd,bhsd->bhts", r, r) for r in (first, second)]
        np.testing.assert_allclose(*scores, atol=1e-12)


def test_attention_equals_softmax_with_repeated_keys():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        q, k, v = (jnp.asarray(rng.normal(size=(2, heads, 5, 8))) for heads in (4, 2, 2))
        mask = jnp.tril(jnp.ones((5, 5), bool))[None]
        repeated = [jnp.repeat(x, 2, axis=1) for x in (k, v)]
        scores = jnp.where(mask[:, None], jnp.einsum("bhtd,bhsd->bhts", q, repeated[0]), -jnp.inf)
        want = jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(scores), repeated[1])
        np.testing.assert_allclose(attend(q, k, v, mask), want, atol=1e-12)


def test_output_matrix_is_the_embedding_unless_untied():
    tied, untied = build(), build(tie_embeddings=False)
    params = tied.init(0)
    np.testing.assert_array_equal(tied.apply(params, tokens())[1], params["embedding"].T)
    params = untied.init(0)
    np.testing.assert_array_equal(untied.apply(params, tokens())[1], params["unembedding"])


def test_scalar_head_reads_each_position_and_starts_at_zero():
    model = build(head="scalar")
    params = model.init(0)
    hidden = jax.random.normal(jax.random.key(0), (2, 6, 16))
    assert model.head(params, hidden).shape == (2, 6) and not np.asarray(model.head(params, hidden)).any()
    params["head"]["linear"] = {"kernel": np.ones((16, 1), np.float32), "bias": np.full(1, 2, np.float32)}
    np.testing.assert_allclose(model.head(params, hidden), hidden.sum(-1) + 2, rtol=1e-5, atol=1e-5)
    assert build().head is None


def test_half_precision_computes_and_keeps_float32_parameters():
    model = build(dtype="bfloat16")
    params = model.init(0)
    hidden, unembedding = jax.jit(model.apply)(params, tokens())
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert hidden.dtype == unembedding.dtype == jnp.bfloat16
    exact = jax.jit(build().apply)(params, tokens())[0]
    assert np.abs(hidden.astype(np.float32) - exact).max() < 0.05  # 2 layers of values near 1, 8 bits


def test_init_is_deterministic_and_seeded():
    model = build()
    first, again, other = model.init(0), model.init(0), model.init(1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["embedding"] != other["embedding"]).all()
    assert {type(leaf) for leaf in jax.tree.leaves(first)} == {np.ndarray}


@pytest.mark.parametrize("scan", [False, True])
def test_partition_names_both_mesh_axes(scan):
    model = build(tie_embeddings=False, head="scalar", scan_layers=scan)
    params = model.init(0)
    specs = model.partition(params)
    assert jax.tree.structure(specs) == jax.tree.structure(params)
    jax.tree.map(lambda p, s: len(s) == p.ndim or pytest.fail(f"{s} for {p.shape}"), params, specs)
    block, stack = (specs["layers"], (None,)) if scan else (specs["layers"]["0"], ())
    assert block["attention"]["query"]["kernel"] == P(*stack, WIDTH, "model")
    assert block["attention"]["query"]["bias"] == P(*stack, "model")
    assert block["mlp"]["down"]["kernel"] == P(*stack, "model", WIDTH)
    assert specs["embedding"] == P("model", WIDTH) and specs["unembedding"] == P(WIDTH, "model")


def test_every_product_contracts_one_dimension():
    """Weight gradients of unflattened tokens would contract two dimensions, which is slow on a CPU."""
    model = build(head="scalar")

    def loss(params):
        hidden, unembedding = model.apply(params, tokens())
        return model.head(params, hidden).sum() + (hidden.reshape(-1, 16) @ unembedding).sum()

    text = jax.jit(jax.grad(loss)).lower(model.init(0)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    for line in products:
        contracted = line.split("contracting_dims = [")[1].split("]")[0]
        assert "," not in contracted, line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hiden_size": 8}, "no option 'hiden_size'. Did you mean 'hidden_size'"),
        ({"head": "scaler"}, "model.head='scaler' must be one of none, scalar. Did you mean 'scalar'"),
        ({"num_kv_heads": 3}, "multiple of model.num_kv_heads"),
        ({"head_dim": 3}, "must be even"),
        ({"dtype": "float64"}, "needs 64-bit types: set JAX_ENABLE_X64"),
    ],
)
def test_messages(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


@pytest.mark.parametrize("block", [2, 4, 7])
def test_attention_in_blocks_is_attention(block, float64):
    def found():
        plain, blocks = (build(dtype="float64", sliding_window=3, attention_block=size) for size in (0, block))
        params, batch = shaken(plain), tokens(t=7)
        valid = np.arange(7) >= np.array([[0], [2]])

        def loss(model, params):
            hidden, _ = model.apply(params, batch, valid)
            return (jnp.where(valid[..., None], hidden, 0) ** 2).sum()

        return [jax.value_and_grad(lambda p, m=model: loss(m, p))(params) for model in (plain, blocks)]

    expected, actual = float64(found)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), actual, expected)


def test_a_block_of_attention_is_a_number():
    with pytest.raises(UserError, match="model.attention_block is a number of queries"):
        build(attention_block=-1)

"""The shared-prefix form equals the plain one: hidden states, loss and gradients, under every option of execution."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import models, ops
from rlx.errors import UserError
from rlx.models import prefix
from rlx.train import sharding
from tests.models import user_model
from tests.models.transformer_test import build, shaken

P, K, L, M = 4, 3, 5, 4


def batch(seed=0):
    """Prompts padded on the left, responses on the right, one of them empty; padding holds junk."""
    rng = np.random.default_rng(seed)
    prompts = np.repeat(rng.integers(0, 19, (P, 1, L)), K, 1)
    tokens = np.concatenate([prompts, rng.integers(0, 19, (P, K, M))], -1).astype(np.int32)
    steps, lengths = np.arange(M), rng.integers(1, M + 1, (P, K, 1))
    lengths[1, 2] = 0
    left = np.repeat(np.arange(L) >= np.array([0, 1, 2, 4])[:, None, None], K, 1)
    return {"tokens": tokens, "valid": np.concatenate([left, steps < lengths], -1)}


def plain(model, params, tokens, valid):
    hidden, unembedding = model.apply(params, *(x.reshape(-1, L + M) for x in (tokens, valid)))
    return hidden.reshape(P, K, L + M, -1)[:, :, L - 1 :], unembedding


def shared(model, params, tokens, valid):
    return prefix.states(model, params, tokens, valid, prompt_length=L)


def outputs(form, model, params, batch, mesh=None):
    """Hidden states of real tokens, loss over the response, its gradient."""
    real = batch["valid"][..., L - 1 :]

    def loss(params, batch):
        hidden, unembedding = form(model, params, **batch)
        found = ops.linear_token_statistics(
            ops.predicting(hidden, 1), unembedding, batch["tokens"][..., L:], where=real[..., 1:], mesh=mesh
        )
        return -found.logp.sum() / real.sum(), jnp.where(real[..., None], hidden, 0)

    (value, hidden), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batch)
    return {"hidden": hidden, "loss": value, "gradient": gradient}


def assert_close(got, want, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, want)


@pytest.mark.parametrize(
    "options", [{}, {"scan_layers": True}, {"remat": "full"}, {"scan_layers": True, "remat": "full"}]
)
def test_equals_the_repeated_sequence(options):
    with jax.enable_x64(True):
        model = build(dtype="float64", **options)
        params = shaken(model)
        assert_close(*(outputs(form, model, params, batch()) for form in (shared, plain)), 1e-10)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_equals_in_float32_with_one_key_head_and_with_as_many_as_queries(kv_heads):
    model = build(num_kv_heads=kv_heads, num_layers=1)
    params = shaken(model)
    assert_close(*(outputs(form, model, params, batch()) for form in (shared, plain)), 1e-5)


@pytest.mark.parametrize(
    ("sizes", "options"), [({"data": 4}, {}), ({"fsdp": 2, "model": 2}, {"scan_layers": True, "remat": "full"})]
)
def test_on_a_mesh(sizes, options):
    model, mesh = build(**options), sharding.make_mesh(sizes)
    params = shaken(model)
    want = outputs(plain, model, params, batch())
    places = sharding.tree_shardings(params, model.partition(params), mesh)
    got = outputs(shared, model, jax.device_put(params, places), sharding.put_batch(batch(), mesh), mesh)
    assert_close(got, want, 1e-5)


def test_prompts_stay_on_their_device():
    """Data parallelism moves gradients, never activations."""
    model, mesh = build(), sharding.make_mesh({"data": 4})
    where = jax.NamedSharding(mesh, jax.P())
    params = jax.device_put(shaken(model), where)

    def loss(params, batch):
        return (shared(model, params, **batch)[0] ** 2).mean()

    step = jax.jit(jax.grad(loss), out_shardings=where)
    text = step.lower(params, sharding.put_batch(batch(), mesh)).compile().as_text()
    assert "all-reduce" in text
    assert not [kind for kind in ("all-gather", "all-to-all", "collective-permute") if kind in text]


def test_what_padding_holds_does_not_matter():
    model = build(num_layers=1)
    params, given = shaken(model), batch()
    junk = given | {"tokens": np.where(given["valid"], given["tokens"], 7)}
    junk["tokens"] = junk["tokens"].astype(np.int32)
    assert_close(*(outputs(shared, model, params, x) for x in (given, junk)), 1e-6)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 1, 3, 2), (1, 3, 1, 2)])
def test_axes_of_size_one(sizes):
    with jax.enable_x64(True):
        prompts, group, length, size = sizes
        model, rng = build(dtype="float64", num_layers=1), np.random.default_rng(0)
        prompt = np.repeat(rng.integers(0, 19, (prompts, 1, length)), group, 1)
        tokens = np.concatenate([prompt, rng.integers(0, 19, (prompts, group, size))], -1)
        params, form = shaken(model), functools.partial(prefix.states, model, prompt_length=length)
        got = jax.jit(form)(params, tokens, np.ones(tokens.shape, bool))[0]
        want = jax.jit(model.apply)(params, tokens.reshape(-1, length + size))[0]
        assert_close(got, want.reshape(*tokens.shape, -1)[:, :, length - 1 :], 1e-10)


def test_responses_do_not_see_each_other():
    model, given = build(num_layers=1), batch()
    form = jax.jit(functools.partial(shared, model))
    other = given["tokens"].copy()
    other[:, 1, L:] = (other[:, 1, L:] + 1) % 19
    before, after = (np.asarray(form(shaken(model), tokens, given["valid"])[0]) for tokens in (given["tokens"], other))
    np.testing.assert_array_equal(before[:, [0, 2]], after[:, [0, 2]])
    assert (before[:, 1, 1] != after[:, 1, 1]).any(-1).all()


def test_half_precision():
    model, given = build(dtype="bfloat16", num_layers=1), batch()
    got, want = (outputs(form, model, shaken(model), given) for form in (shared, plain))
    assert got["hidden"].dtype == jnp.bfloat16
    np.testing.assert_allclose(got["loss"], want["loss"], rtol=0.01)
    np.testing.assert_allclose(*(np.asarray(x["hidden"], np.float32) for x in (got, want)), atol=0.05)


def test_rows_of_padding_have_finite_gradients():
    model, given = build(num_layers=1), batch()
    params = jax.device_put(shaken(model))
    valid = given["valid"] & (np.arange(P) > 0)[:, None, None]

    def loss(params):
        return (shared(model, params, given["tokens"], valid)[0] ** 2).sum()

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_every_product_contracts_one_dimension():
    """As in the plain form: two at once are slow on a CPU."""
    model, given = build(), batch()
    params = shaken(model)
    loss = jax.jit(jax.grad(lambda p: shared(model, p, **given)[0].sum()))
    text = loss.lower(jax.device_put(params)).as_text()
    contracted = re.findall(r"dot_general.*?contracting_dims = \[([^\]]*)\]", text)
    assert len(contracted) > 50 and not any("," in dims for dims in contracted)


def test_valid_is_optional():
    model = build(num_layers=1)
    params, tokens = shaken(model), batch()["tokens"]
    full = jax.jit(functools.partial(shared, model))(params, tokens, np.ones(tokens.shape, bool))
    short = jax.jit(model.shared)(params, tokens[:, 0, :L], None, tokens[..., L:], None)
    assert_close(short, full, 1e-5)


def test_computes_less():
    """12 prompt tokens, 6 responses of 4: 36 instead of 96 tokens in every product of the layers."""
    model, rng = build(), np.random.default_rng(0)
    params, tokens = shaken(model), rng.integers(0, 19, (2, 6, 16)).astype(np.int32)
    valid = np.ones(tokens.shape, bool)
    forms = {
        "plain": lambda p: model.apply(p, tokens.reshape(12, 16), valid.reshape(12, 16))[0],
        "shared": lambda p: prefix.states(model, p, tokens, valid, prompt_length=12)[0],
    }
    flops = {name: jax.jit(form).lower(params).compile().cost_analysis()["flops"] for name, form in forms.items()}
    assert flops["shared"] < 0.5 * flops["plain"]


def test_prompts_that_differ_are_named():
    given = batch()
    tokens, valid = given["tokens"].copy(), given["valid"]
    tokens[2, 1, 0] = 18 - tokens[2, 1, 0]  # padding: row 2 has two pads
    prefix.check_prompts(tokens, valid, L)
    tokens[2, 1, 3] += 1
    with pytest.raises(UserError, match="candidate 1 of row 2 has another prompt than candidate 0"):
        prefix.check_prompts(tokens, valid, L)
    real = np.ones((P, K), bool)
    real[2, 1] = False
    prefix.check_prompts(tokens, valid, L, real)


def test_messages():
    given = batch()
    with pytest.raises(UserError, match="no shared-prefix form .* call model.apply"):
        prefix.states(user_model.factory(), {}, *given.values(), prompt_length=L)
    for tokens, length in ((given["tokens"], L + M), (given["tokens"], 0), (given["tokens"][0], L)):
        with pytest.raises(UserError, match=f"prompt_length={length} between 1 and time - 1"):
            prefix.states(build(), {}, tokens, tokens > 0, prompt_length=length)
    assert models.build({"name": "tests.models.user_model:factory"}).shared is None

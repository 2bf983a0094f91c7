"""Low-rank adapters: nothing changes without them or at their start, and every form of the model has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rlx import errors, models
from rlx.models import lora, sampling
from rlx.models.lora import Lora
from rlx.models.moving import moving

SIZE = {"name": "transformer", "vocab_size": 16, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
BLOCK = {"rank": 3, "alpha": 6, "targets": "all-linear", "modules": {"value": {"rank": 2}, "down": {"alpha": 1.5}}}
PLAIN = models.build(SIZE)
MODEL = models.build(SIZE | {"lora": BLOCK})
TOKENS = np.random.default_rng(0).integers(0, 16, (2, 7))


def shaken(model, seed=0):
    """Parameters with an adapter that does something."""
    rng = np.random.default_rng(seed)

    def leaf(path, x):
        return rng.standard_normal(x.shape).astype(x.dtype) / 2 if path[-1].key == "b" else x

    return jax.tree_util.tree_map_with_path(leaf, model.init(seed))


def names(params):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }


def test_adapters_add_their_parameters_and_change_no_other():
    plain, params = PLAIN.init(0), MODEL.init(0)
    added = names(params) - names(plain)
    assert names(plain) < names(params) and all("lora" in name for name in added) and len(added) == 2 * 7 * 2
    assert names(models.build(SIZE | {"lora": {}}).init(0)) == names(plain)
    jax.tree.map(np.testing.assert_array_equal, without(params), plain)


def without(node):
    """Parameters without their adapters."""
    return {key: without(x) for key, x in node.items() if key != "lora"} if isinstance(node, dict) else node


def test_at_the_start_the_model_is_its_base():
    ours, base = MODEL.apply(MODEL.init(0), TOKENS)[0], PLAIN.apply(PLAIN.init(0), TOKENS)[0]
    np.testing.assert_array_equal(ours, base)


def test_the_first_numbers_are_those_of_peft():
    a = models.build(SIZE | {"hidden_size": 256, "lora": {"rank": 16}}).init(0)["layers"]["0"]["attention"]["query"]
    assert not a["lora"]["b"].any()
    bound = 1 / 16  # kaiming uniform with a = sqrt(5) is uniform within 1 / sqrt(fan in)
    np.testing.assert_allclose(np.abs(a["lora"]["a"]).max(), bound, rtol=0.01)
    np.testing.assert_allclose(a["lora"]["a"].std(), bound / 3**0.5, rtol=0.05)
    rng = np.random.default_rng(0)
    gaussian = lora.draw(Lora(rank=16, init="gaussian"), ["a"], (256, 16), np.float32, rng)
    np.testing.assert_allclose(gaussian.std(), 1 / 16, rtol=0.05)


def test_the_product_is_that_of_the_definition():
    params = shaken(MODEL)
    block = params["layers"]["0"]
    x = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    for target, rank, scale in (("query", 3, 2.0), ("value", 2, 3.0)):
        linear = block["attention"][target]
        assert linear["lora"]["a"].shape == (8, rank) and MODEL.lora.scale_of(target) == scale
        merged = linear["kernel"] + scale * linear["lora"]["a"] @ linear["lora"]["b"]
        found = lora.merge(MODEL, params)["layers"]["0"]["attention"][target]["kernel"]
        np.testing.assert_allclose(x @ np.asarray(found), x @ merged, rtol=1e-5, atol=1e-5)


def test_merged_parameters_are_the_same_function():
    params = shaken(MODEL)
    merged = lora.merge(MODEL, params)
    assert names(merged) == names(PLAIN.init(0))
    ours, theirs = MODEL.apply(params, TOKENS)[0], PLAIN.apply(merged, TOKENS)[0]
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
    assert np.abs(np.asarray(ours - PLAIN.apply(PLAIN.init(0), TOKENS)[0])).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, lora.merge(MODEL, params), merged)
    with pytest.raises(errors.UserError, match="no adapters to merge"):
        lora.merge(PLAIN, merged)


def test_stacked_layers_hold_what_a_list_of_layers_does():
    """Under scan, with rematerialisation, the numbers and the gradients are those of the list."""
    stacked = models.build(SIZE | {"lora": BLOCK, "scan_layers": True, "remat": "full"})
    one, other = MODEL.init(0), stacked.init(0)
    both = jax.tree.map(lambda *leaves: np.stack(leaves), one["layers"]["0"], one["layers"]["1"])
    jax.tree.map(np.testing.assert_array_equal, both, other["layers"])
    params = shaken(stacked)
    apart = {**params, "layers": {str(i): jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(2)}}

    def loss(model):
        return jax.jit(jax.grad(lambda part: (model.apply(part, TOKENS)[0] ** 2).sum()))

    grads, expected = loss(stacked)(params)["layers"], loss(MODEL)(apart)["layers"]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), expected["0"], expected["1"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), grads, expected)
    merged = lora.merge(stacked, params)["layers"]["mlp"]["down"]["kernel"]
    expected = lora.merge(MODEL, apart)["layers"]["1"]["mlp"]["down"]["kernel"]
    np.testing.assert_allclose(merged[1], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scan", [False, True])
def test_the_cached_path_has_the_adapter(scan):
    model = models.build(SIZE | {"lora": BLOCK, "scan_layers": scan})
    params = shaken(model)
    decode = sampling.decoder(model)
    if decode.unrolled is not None:
        model, params = decode.unrolled(params)
        decode = sampling.decoder(model)
    cache, hidden, _ = decode.prefill(params, TOKENS[:, :4], None, 7)
    found = [hidden]
    for t in range(4, 7):
        cache, hidden, _ = decode.step(params, cache, TOKENS[:, t])
        found.append(hidden)
    np.testing.assert_allclose(np.stack(found, 1), model.apply(params, TOKENS)[0][:, 3:], rtol=1e-4, atol=1e-4)


def test_packed_rows_and_shared_prompts_have_the_adapter():
    params = shaken(MODEL)
    whole = MODEL.apply(params, TOKENS)[0]
    rows, segments = TOKENS.reshape(1, -1), np.repeat([[1, 2]], 7, 1)
    packed = MODEL.packed(params, rows, segments)[0].reshape(whole.shape)
    np.testing.assert_allclose(packed, whole, rtol=1e-4, atol=1e-4)
    shared = MODEL.shared(params, TOKENS[:, :4], None, TOKENS[:, None, 4:], None)[0]
    np.testing.assert_allclose(shared[:, 0], whole[:, 3:], rtol=1e-4, atol=1e-4)


def test_adapters_and_heads_are_what_training_moves():
    model = models.build(SIZE | {"lora": {"targets": ["query", "down"]}, "head": "scalar", "tie_embeddings": False})
    moved = names(moving(model, model.init(0)))
    per_layer = [f"{where}/lora/{x}" for where in ("attention/query", "mlp/down") for x in "ab"]
    assert moved == {f"layers/{i}/{name}" for i in "01" for name in per_layer} | {
        "head/linear/kernel",
        "head/linear/bias",
    }


def test_freezing_by_name():
    model = models.build(SIZE | {"freeze": ["embedding", "layers/0", "mlp/gate"]})
    kept = names(model.init(0)) - names(moving(model, model.init(0)))
    assert {name for name in kept if not name.startswith("layers/0/")} == {"embedding", "layers/1/mlp/gate/kernel"}
    assert len(kept) == 2 + 9 and PLAIN.trainable is None
    with pytest.raises(errors.UserError, match="no parameter is called 'embeding'. Did you mean 'embedding'"):
        models.build(SIZE | {"freeze": "embeding"})


def test_shards_follow_the_kernel():
    params = MODEL.init(0)
    specs = MODEL.partition(params)["layers"]["0"]
    for linear in (*specs["attention"].values(), *specs["mlp"].values()):
        assert linear["lora"]["a"] == PartitionSpec(linear["kernel"][0], None)
        assert linear["lora"]["b"] == PartitionSpec(None, linear["kernel"][1])


def test_adapters_of_a_narrow_base_are_wide():
    model = models.build(SIZE | {"param_dtype": "bfloat16", "dtype": "bfloat16", "lora": {"rank": 2}})
    query = model.init(0)["layers"]["0"]["attention"]["query"]
    assert query["kernel"].dtype == jnp.bfloat16 and query["lora"]["a"].dtype == np.float32
    assert lora.merge(model, model.init(0))["layers"]["0"]["attention"]["query"]["kernel"].dtype == jnp.bfloat16
    assert model.apply(model.init(0), TOKENS)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"rnk": 2}, "model.lora has no key 'rnk'. Did you mean 'rank'"),
        ({"targets": ["querry"]}, "unknown linear map 'querry'. Did you mean 'query'"),
        ({"targets": []}, "model.lora.targets is empty"),
        ({"rank": 0}, "rank of query must be a whole number of at least 1, not 0"),
        ({"alpha": -1}, "alpha of query must be a number above 0, not -1"),
        ({"alpha": "x"}, "alpha of query must be a number above 0, not 'x'"),
        ({"modules": {"up": {"rank": 2}}}, "modules.up is not used: up is not among the targets"),
        ({"modules": {"query": {"alpa": 2}}}, "modules.query has no key 'alpa'. Did you mean 'alpha'"),
        ({"modules": {"query": {"rank": 1.5}}}, "rank of query must be a whole number"),
        ({"init": "gausian"}, "unknown 'gausian'. Did you mean 'gaussian'"),
    ],
)
def test_wrong_blocks(block, message):
    with pytest.raises(errors.UserError, match=message):
        models.build(SIZE | {"lora": block})

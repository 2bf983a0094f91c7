"""Packed batches: arrays, losses and parameters after a step are those of whole rows, on every layout."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx import models
from rlx.errors import UserError
from rlx.method import Shapes
from rlx.train import packing, sharding, state, step
from rlx.train.assemble import assemble
from rlx.train.forward import Forward
from rlx.train.packing import ARRAYS, PackingSettings, lay
from rlx.train.split import Split
from tests.models.transformer_test import shaken

ROWS, GROUP, PROMPT, RESPONSE, VOCAB = 8, 3, 5, 7, 16
OPTIMIZER = optax.sgd(0.5)
OF_THE_FORWARD_PASS = ("logprobs", "entropy", "logits", "hidden", "rewards", "values", "q_values", "reference_logprobs")
SUMS = ("policy_kl_logps", "reference_kl_logps", "rationale_logps")


@functools.cache
def model_of(dtype: str = "float32") -> models.Model:
    size = {"vocab_size": VOCAB, "num_layers": 1, "hidden_size": 16, "num_heads": 2, "head": "scalar", "init_std": 0.3}
    return models.build({**size, "dtype": dtype})


def make_batch(group: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Prompts and responses of uneven length, mismatched ones too; one response is empty, one row wholly padding."""
    rng = np.random.default_rng(seed)
    shape, steps = (ROWS, group, PROMPT + RESPONSE), np.arange(PROMPT + RESPONSE)
    starts = rng.integers(0, PROMPT, (ROWS, 1, 1))

    def sequences(of: str) -> dict[str, np.ndarray]:
        lengths = rng.integers(1, RESPONSE + 1, (ROWS, group, 1))
        lengths[0, 0] = 0
        valid = (steps >= starts) & (steps < PROMPT + lengths)
        valid[-1] = False
        tokens = rng.integers(3, VOCAB, shape).astype(np.int32)
        return {f"{of}tokens": tokens, f"{of}valid": valid, f"{of}where": valid & (steps >= PROMPT)}

    real = np.ones((ROWS, group), bool)
    real[-1], real[2, -1] = False, group < 2
    noise = rng.normal(size=(ROWS, group, RESPONSE)).astype(np.float32)
    return sequences("") | sequences("kl_") | {
        "candidate_where": real,
        "index": np.arange(ROWS, dtype=np.int32),
        "labels": (rng.random((ROWS, group)) < 0.5).astype(np.float32),
        "rewards": rng.random((ROWS, group)).astype(np.float32),
        "old_logprobs": 0.1 * noise - 3,
    }  # fmt: skip


def test_arrays_are_those_of_whole_rows():
    model, batch = model_of(), make_batch(GROUP)
    params = jax.tree.map(jnp.asarray, shaken(model))
    other = jax.tree.map(lambda x: 0.9 * x, params)
    forward = jax.jit(lambda batch: Forward(model, prompt_length=PROMPT)(params, batch, {"reference": other}, names))
    names = (*OF_THE_FORWARD_PASS, *SUMS)
    del batch["rewards"]  # the model's own are meant
    batch |= {f"rationale_{name}": batch[f"kl_{name}"][:, :1] for name in ("tokens", "valid", "where")}
    packed = lay(batch, PackingSettings(), prompt_length=PROMPT, mesh=sharding.make_mesh())
    assert packed[ARRAYS[0]].size < batch["tokens"].size
    want, found = forward(batch), forward(packed)
    response = want["token_where"]
    for name in SUMS:
        np.testing.assert_allclose(found[name], want[name], atol=1e-5, err_msg=name)
    for name in OF_THE_FORWARD_PASS:  # what stands at padding means nothing
        where = response if want[name].shape[:3] == response.shape else batch["candidate_where"]
        where = where.reshape(where.shape + (1,) * (want[name].ndim - where.ndim))
        a, b = (jnp.where(where, array[name], 0) for array in (found, want))
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)


METHODS = {
    "sft": ("sft", 1),
    "dpo": ({"name": "dpo", "beta": 0.5}, 2),
    "kto": ({"name": "kto", "beta": 0.5}, 1),  # couples the batch by the mismatched pairs
    "bradley_terry_rm": ("bradley_terry_rm", 2),
    "grpo": ({"name": "grpo", "kl": "k3(0.04)"}, GROUP),
}
CASES = [
    ("sft", "float64", {}, 1, PackingSettings(multiple=1, capacity=2)),
    ("dpo", "float64", {}, 2, PackingSettings(multiple=2)),
    ("bradley_terry_rm", "float64", {}, 1, PackingSettings()),
    ("grpo", "float64", {}, 2, PackingSettings()),
    ("kto", "float64", {}, 2, PackingSettings(multiple=1)),
    ("grpo", "float32", {"data": 2, "fsdp": 2}, 2, PackingSettings(multiple=1)),
    ("kto", "float32", {"data": 2, "fsdp": 2}, 1, PackingSettings(multiple=1)),
]


def after(name: str, dtype: str, mesh: dict, parts: int, sizes: PackingSettings | None = None):
    """Parameters, loss and norm of the gradient after a step."""
    spec, group = METHODS[name]
    model, method, placed = model_of(dtype), rlx.build(spec), sharding.make_mesh(mesh)
    shapes = Shapes(16, VOCAB, ROWS)
    now = state.create_state(model, method, OPTIMIZER, shapes, seed=0, mesh=placed, policy=shaken(model))
    reference = jax.tree.map(lambda x: 0.9 * x, now.params["policy"])
    layout = {"mesh": placed, "prompt_length": PROMPT, "micro_batches": parts}
    batch = make_batch(group)
    if "old_logprobs" not in method.needs:
        del batch["rewards"]  # the model's own are meant
    batch = batch if sizes is None else lay(batch, sizes, **layout)
    run = step.make_train_step(model, method, OPTIMIZER, **layout)
    now, found = run(now, sharding.put_batch(batch, placed), {"reference": reference})
    return jax.device_get((now.params["policy"], found["loss"].value, found["grad_norm"].value))


@functools.cache
def plain(name: str, dtype: str):
    return after(name, dtype, {}, 1)


@pytest.mark.parametrize(("name", "dtype", "mesh", "parts", "sizes"), CASES)
def test_a_step_is_that_on_whole_rows(name, dtype, mesh, parts, sizes):
    with jax.enable_x64(dtype == "float64"):
        want, found = plain(name, dtype), after(name, dtype, mesh, parts, sizes)
    assert abs(float(want[2])) > 1e-2
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, want)


def test_devices_of_pmap_have_packed_rows_of_their_own():
    method, devices = rlx.build("sft", axis_name="rows"), 2
    whole = state.create_state(
        model_of(), method, OPTIMIZER, Shapes(), seed=0, mesh=sharding.make_mesh(), policy=shaken(model_of())
    )
    run = step.make_pmap_step(model_of(), method, OPTIMIZER, axis_name="rows", prompt_length=PROMPT)
    batch = lay(make_batch(1), PackingSettings(1), prompt_length=PROMPT, mesh=sharding.make_mesh({"data": devices}))
    split = {name: x.reshape(devices, -1, *x.shape[1:]) for name, x in batch.items()}
    _, found = run(sharding.replicate(whole, devices), split, {})
    np.testing.assert_allclose(found["loss"].value[0], plain("sft", "float32")[1], rtol=1e-5)


def test_hidden_states_stay_on_their_device():
    mesh, method = sharding.make_mesh({"data": 4}), rlx.build("sft")
    now = state.create_state(model_of(), method, OPTIMIZER, Shapes(16, VOCAB, ROWS), seed=0, mesh=mesh)
    batch = lay(make_batch(1), PackingSettings(), prompt_length=PROMPT, mesh=mesh)
    advance = step.make_train_step(model_of(), method, OPTIMIZER, mesh=mesh, prompt_length=PROMPT)
    text = advance.lower(now, sharding.put_batch(batch, mesh), {}).compile().as_text()
    collectives = re.findall(r"= .*? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\S*\(", text)
    assert collectives == ["all-reduce"], collectives


def test_micro_batches_hold_their_own_sequences():
    mesh, parts = sharding.make_mesh({"data": 2}), 2
    batch = lay(make_batch(GROUP), PackingSettings(), prompt_length=PROMPT, mesh=mesh, micro_batches=parts)
    for part in range(parts):
        own = {name: np.asarray(Split(parts).cut(jnp.asarray(x))[part]) for name, x in batch.items()}
        tokens, segments, index = (own[name] for name in ARRAYS)
        flat = tokens.reshape(2, -1)
        shard = np.arange(2).repeat(len(index) // 2)[:, None, None]
        where = own["valid"][..., PROMPT - 1 :]
        np.testing.assert_array_equal(flat[shard, index][where], own["tokens"][..., PROMPT - 1 :][where])
        assert (segments > 0).sum() == own["valid"].sum()


def test_what_does_not_go_together_is_refused():
    model, batch = model_of(), make_batch(1)
    params = jax.eval_shape(lambda: model.init(0))
    packed = lay(batch, PackingSettings(), prompt_length=PROMPT, mesh=sharding.make_mesh())
    with pytest.raises(UserError, match=r"packed rows need a model with such a form.* no Model\.packed"):
        Forward(model._replace(packed=None), prompt_length=PROMPT)(params, packed, {}, ("logprobs",))
    with pytest.raises(UserError, match="packed does not go with shared_prefix"):
        Forward(model, prompt_length=PROMPT, shared_prefix=True)(params, packed, {}, ("logprobs",))
    with pytest.raises(UserError, match="8 rows do not divide over 1 shards x 3 micro-batches"):
        lay(batch, PackingSettings(), prompt_length=PROMPT, mesh=sharding.make_mesh(), micro_batches=3)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"multipel": 2}, r"config\.sft\.packing has an unknown key 'multipel'\. Did you mean 'multiple'"),
        ({"multiple": 0.5}, r"config\.sft\.packing\.multiple must be a whole number of at least 1, not 0\.5"),
        ({"multiple": True}, r"config\.sft\.packing\.multiple must be a whole number of at least 1, not True"),
        ({"capacity": 0}, r"config\.sft\.packing\.capacity must be a whole number of at least 1, not 0"),
        (4, r"config\.sft\.packing must be a block of keys, not 4"),
    ],
)
def test_a_mistake_in_the_block_is_named(tiny, block, message):
    config = tiny()
    config["sft"]["packing"] = block
    with pytest.raises(UserError, match=message):
        assemble(config)


def test_processes_would_differ_in_rows(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"config\.sft\.packing goes with one process, not 2"):
        packing.check({"multiple": 2}, "sft", None, model_of())


def without_the_form() -> models.Model:
    return models.build({"vocab_size": 259, "hidden_size": 8, "num_layers": 1, "num_heads": 2})._replace(packed=None)


def test_a_model_without_the_form_is_refused_before_anything_runs(tiny):
    config = tiny(model={"name": "tests.train.packing_test:without_the_form"})
    config["preference"]["packing"] = {"multiple": 2}
    with pytest.raises(UserError, match=r"config\.preference\.packing needs a model with Model\.packed.*remove the"):
        assemble(config)

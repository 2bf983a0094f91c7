"""The step on every layout: one device, data, fsdp and model axes, micro-batches and pmap take the same path."""

import functools
import re

import jax
import numpy as np
import optax
import pytest

import rlx
from rlx import errors, models
from rlx.method import Shapes
from rlx.train import sharding, state, step

ROWS, PROMPT, RESPONSE, VOCAB, STEPS = 8, 3, 6, 32, 20
LAYOUTS = {
    "data4": ({"data": 4}, 1),
    "fsdp4": ({"fsdp": 4}, 1),
    "data2_model2": ({"data": 2, "model": 2}, 1),
    "micro4": ({}, 4),
    "data2_micro2": ({"data": 2}, 2),
}
METHODS = {"dpo": {"name": "dpo", "beta": 0.5}, "kto": {"name": "kto", "beta": 0.5}}
OPTIMIZER = optax.sgd(0.5)


def make_model(dtype: str) -> models.Model:
    size = {"vocab_size": VOCAB, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
    return models.build({"name": "transformer", "dtype": dtype, "param_dtype": dtype, **size})


def make_batch(seed: int, method: str) -> dict[str, np.ndarray]:
    """Ragged rows with padding on both sides, and now and then a padding row."""
    rng = np.random.default_rng(seed)
    candidates = 2 if method == "dpo" else 1

    def rows():
        shape = (ROWS, candidates, PROMPT + RESPONSE)
        lengths = rng.integers(1, RESPONSE + 1, (ROWS, candidates, 1))
        starts = rng.integers(0, PROMPT, (ROWS, 1, 1))
        position = np.broadcast_to(np.arange(PROMPT + RESPONSE), shape)
        where = (position >= PROMPT) & (position < PROMPT + lengths)
        valid = where | ((position >= starts) & (position < PROMPT))
        return rng.integers(3, VOCAB, shape).astype(np.int32), valid, where

    batch = dict(zip(("tokens", "valid", "where"), rows(), strict=True))
    batch["candidate_where"] = np.ones((ROWS, candidates), bool)
    batch["candidate_where"][-1] = seed % 3 > 0
    batch["index"] = np.arange(ROWS, dtype=np.int32)
    if method == "kto":
        batch |= dict(zip(("kl_tokens", "kl_valid", "kl_where"), rows(), strict=True))
        batch["labels"] = (rng.random((ROWS, 1)) < 0.5).astype(np.float32)
    return batch


def losses(method: str, dtype: str, mesh: dict, micro_batches: int) -> np.ndarray:
    with jax.enable_x64(dtype == "float64"):
        model, built, placed = make_model(dtype), rlx.build(METHODS[method]), sharding.make_mesh(mesh)
        current = state.create_state(model, built, OPTIMIZER, Shapes(16, VOCAB, 100), seed=0, mesh=placed)
        auxiliary = {"reference": jax.tree.map(jax.numpy.copy, current.params["policy"])}
        advance = step.make_train_step(
            model, built, OPTIMIZER, mesh=placed, prompt_length=PROMPT, micro_batches=micro_batches
        )
        found = []
        for i in range(STEPS):
            current, reported = advance(current, sharding.put_batch(make_batch(i, method), placed), auxiliary)
            found.append(float(reported["loss"].value))
        return np.array(found)


def pmap_losses(method: str, dtype: str) -> np.ndarray:
    with jax.enable_x64(dtype == "float64"):
        model, built = make_model(dtype), rlx.build(METHODS[method], axis_name="rows")
        whole = state.create_state(model, built, OPTIMIZER, Shapes(16, VOCAB, 100), seed=0, mesh=sharding.make_mesh({}))
        auxiliary = sharding.replicate({"reference": whole.params["policy"]}, 4)
        current = sharding.replicate(whole, 4)
        advance = step.make_pmap_step(model, built, OPTIMIZER, axis_name="rows", prompt_length=PROMPT)
        found = []
        for i in range(STEPS):
            batch = {k: v.reshape(4, ROWS // 4, *v.shape[1:]) for k, v in make_batch(i, method).items()}
            current, reported = advance(current, batch, auxiliary)
            found.append(float(reported["loss"].value[0]))
        return np.array(found)


@functools.cache
def one_device(method: str, dtype: str) -> np.ndarray:
    return losses(method, dtype, {}, 1)


TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("method", METHODS)
def test_every_layout_follows_the_same_trajectory(method, dtype):
    expected = one_device(method, dtype)
    assert np.ptp(expected) > 1e-3  # something is learned, so that agreement says something
    found = {name: losses(method, dtype, *layout) for name, layout in LAYOUTS.items()}
    found["pmap"] = pmap_losses(method, dtype)
    for name, trajectory in found.items():
        np.testing.assert_allclose(
            trajectory, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=f"{method} {dtype} {name}"
        )


def test_data_parallel_step_has_one_all_reduce_and_no_all_gather():
    model, built, mesh = make_model("float32"), rlx.build("dpo"), sharding.make_mesh({"data": 4})
    current = state.create_state(model, built, OPTIMIZER, Shapes(16, VOCAB, 100), seed=0, mesh=mesh)
    auxiliary = {"reference": jax.tree.map(jax.numpy.copy, current.params["policy"])}
    advance = step.make_train_step(model, built, OPTIMIZER, mesh=mesh, prompt_length=PROMPT)
    text = advance.lower(current, sharding.put_batch(make_batch(0, "dpo"), mesh), auxiliary).compile().as_text()
    collectives = re.findall(r"= .*? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\S*\(", text)
    assert collectives == ["all-reduce"], collectives


def test_parameters_and_moments_are_sharded_from_the_start():
    model, mesh = make_model("float32"), sharding.make_mesh({"fsdp": 4})
    current = state.create_state(model, rlx.build("dpo"), optax.adam(1e-3), Shapes(), seed=0, mesh=mesh)
    sharded = [x for x in jax.tree.leaves(current.params) if not x.sharding.is_fully_replicated]
    moments = [x for x in jax.tree.leaves(current.opt_state) if not x.sharding.is_fully_replicated]
    assert len(sharded) > 5 and len(moments) == 2 * len(sharded)


def test_what_only_the_whole_batch_defines_is_not_split():
    built = rlx.build("dpo")._replace(name="log_mean_exp", splittable=False)
    with pytest.raises(errors.UserError, match="log_mean_exp couples the whole batch through its gradient"):
        step.make_train_step(
            make_model("float32"), built, OPTIMIZER, mesh=sharding.make_mesh(), prompt_length=PROMPT, micro_batches=2
        )


@pytest.mark.parametrize(
    "config, message",
    [
        ({"dta": 2}, "mesh has no axis 'dta'. Did you mean 'data'"),
        ({"data": 0}, "mesh.data must be a whole number"),
        ({"data": 64}, "asks for 64 devices, there are 8"),
    ],
)
def test_mesh_errors(config, message):
    with pytest.raises(errors.UserError, match=message):
        sharding.make_mesh(config)


def test_rows_that_do_not_divide_are_refused():
    mesh = sharding.make_mesh({"data": 4})
    with pytest.raises(errors.UserError, match="tokens has 6 rows.*multiple of 4"):
        sharding.put_batch({"tokens": np.zeros((6, 2, 9), np.int32)}, mesh)
    with pytest.raises(errors.UserError, match="batch_size 8 does not divide into 3 equal parts"):
        step.check_rows(make_batch(0, "dpo"), 3)


def test_a_missing_reference_is_named():
    model, built = make_model("float32"), rlx.build("dpo")
    evaluate = step.make_eval_step(model, built, mesh=sharding.make_mesh(), prompt_length=PROMPT)
    with pytest.raises(errors.UserError, match="Nothing provides reference_logps"):
        evaluate({"policy": model.init(0), "method": {}}, {}, make_batch(0, "dpo"), {})


def test_cached_reference_equals_the_one_on_the_fly():
    model, built, mesh = make_model("float32"), rlx.build("dpo"), sharding.make_mesh()
    policy, reference = model.init(0), model.init(1)
    batch = make_batch(0, "dpo")
    score = step.make_score(model, mesh=mesh, prompt_length=PROMPT)
    cached = batch | {"reference_logps": np.asarray(score(reference, batch)["logps"])}
    evaluate = step.make_eval_step(model, built, mesh=mesh, prompt_length=PROMPT)
    params = {"policy": policy, "method": {}}
    on_the_fly = evaluate(params, {}, batch, {"reference": reference})
    np.testing.assert_allclose(evaluate(params, {}, cached, {})["loss"].value, on_the_fly["loss"].value, rtol=1e-6)


def test_metrics_share_the_work_of_the_loss(monkeypatch):
    model, built, mesh = make_model("float32"), rlx.build("dpo"), sharding.make_mesh()
    current = state.create_state(model, built, OPTIMIZER, Shapes(16, VOCAB, 100), seed=0, mesh=mesh)
    batch, auxiliary = make_batch(0, "dpo"), {"reference": model.init(1)}

    def flops() -> float:
        advance = step.make_train_step(model, built, OPTIMIZER, mesh=mesh, prompt_length=PROMPT)
        return advance.lower(current, batch, auxiliary).compile().cost_analysis()["flops"]

    with_metrics = flops()
    monkeypatch.setattr(step, "report", lambda method, arrays, constants: {})
    assert with_metrics <= 1.02 * flops()

"""The step: what it communicates, what lies where, what it refuses; its numbers on every layout: layouts_test."""

import re

import jax
import numpy as np
import optax
import pytest

import rlx
from rlx import errors
from rlx.method import Shapes
from rlx.train import policies, sharding, state, step
from rlx.train.split import split_of
from tests.train.layouts import OPTIMIZER, PROMPT, VOCAB, make_batch, make_model


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
        split_of(rlx.build("dpo"), make_batch(0, "dpo"), 3, 1)


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


def test_parameters_are_drawn_into_their_places_and_are_those_of_the_host():
    model, built, optimizer = make_model("float32"), rlx.build("power_dl"), optax.adam(1e-3)
    mesh = sharding.make_mesh({"fsdp": 2, "model": 2})
    options = {"mesh": mesh, "rules": {"opponents": policies.Rule("snapshot", count=2)}}
    current = state.create_state(model, built, optimizer, Shapes(16, VOCAB, 8), seed=3, **options)
    blank = state.blank_state(model, built, optimizer, Shapes(16, VOCAB, 8), **options)
    jax.tree.map(np.testing.assert_array_equal, current.params["policy"], model.init(3))
    assert jax.tree.structure(blank) == jax.tree.structure(current)
    for leaf, expected in zip(jax.tree.leaves(current), jax.tree.leaves(blank), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
        assert leaf.sharding.is_equivalent_to(expected.sharding, leaf.ndim)
    assert len(current.method_state["labels"].addressable_shards[0].data) == 4  # 8 examples over fsdp


@pytest.mark.parametrize("mesh", [{"data": 2, "fsdp": 2, "model": 2}, {"fsdp": 2, "sequence": 2}])
def test_no_activation_is_copied_to_every_device_to_be_laid_out_anew(mesh, capfd):
    model, built, placed = make_model("float32"), rlx.build("dpo"), sharding.make_mesh(mesh)
    current = state.create_state(model, built, OPTIMIZER, Shapes(16, VOCAB, 100), seed=0, mesh=placed)
    auxiliary = {"reference": jax.tree.map(jax.numpy.copy, current.params["policy"])}
    batch = {
        key: array[..., :-1] if array.ndim == 3 else array for key, array in make_batch(0, "dpo").items()
    }  # so that "sequence" divides the positions
    advance = step.make_train_step(model, built, OPTIMIZER, mesh=placed, prompt_length=PROMPT)
    jax.config.update("jax_enable_compilation_cache", False)  # the compiler says so only when it runs
    try:
        advance.lower(current, sharding.put_batch(batch, placed), auxiliary).compile()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert "full rematerialization" not in capfd.readouterr().err

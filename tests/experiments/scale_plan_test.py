"""The plan beyond this machine: what a program moves, which meshes are tried, what a row says."""

import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from experiments import scale_plan
from experiments.ledger import Ledger
from experiments.scale_plan_collectives import Moved, collectives
from rlx import models
from rlx.errors import UserError
from rlx.train import sharding

TPU = """
%body (p: (f32[8], s32[])) -> (f32[8], s32[]) {
  %started = (f32[4]{0}, f32[8]{0}, u32[]{:S(2)}) all-gather-start(%x), channel_id=1
  %hidden = f32[8]{0} fusion(%x), kind=kOutput, calls=%fused_start
  %carried = f32[8]{0} fusion(%x), kind=kOutput, calls=%async_collective_fusion.1
  %ended = f32[8]{0} fusion(%x), kind=kOutput, calls=%fused_done
}

%condition (p: (f32[8], s32[])) -> pred[] {
  %bound = s32[]{:T(128)} constant(32)
}

%fused_start (x: f32[4]) -> f32[8] {
  %g = bf16[16]{0} all-gather(%x), channel_id=2
  ROOT %c = f32[8] custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (x: f32[4]) -> f32[8] {
  %g = bf16[16]{0} all-gather(%x), channel_id=2
}

%fused_done (x: f32[4]) -> f32[8] {
  %g = bf16[16]{0} all-gather(%x), channel_id=2
  ROOT %c = f32[8] custom-call(%g), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (x: f32[4]) -> f32[8] {
  %loop = (f32[8], s32[]) while(%t), condition=%condition, body=%body
  %sum = (f32[2,3]{1,0}, f32[]) all-reduce(%a, %b), channel_id=3
}
"""


def test_loops_are_multiplied_out_and_what_is_spread_counts_once():
    found = collectives(TPU)
    assert found["all-gather"] == Moved(2 * 32, 32 * (8 * 4 + 16 * 2))
    assert found["all-reduce"] == Moved(1, 2 * (6 * 4 + 4))


def test_a_program_of_this_machine():
    mesh = sharding.make_mesh({"fsdp": 4})
    rows, weights = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("fsdp",), ("fsdp",)))

    def step(w, x):
        y = jax.lax.with_sharding_constraint(x @ w, rows)
        return jax.lax.scan(lambda y, _: (jax.lax.with_sharding_constraint(y @ w, rows), None), y, None, length=3)[0]

    x, w = jax.device_put(jnp.ones((8, 16)), rows), jax.device_put(jnp.ones((16, 16)), weights)
    found = collectives(jax.jit(step, out_shardings=rows).lower(w, x).compile().as_text())
    assert set(found) <= {"all-gather", "all-to-all"} and sum(size for _, size in found.values()) >= 16 * 16 * 4


def options(**given):
    return scale_plan.config("default", {"models": "llama_8b", "topologies": "v5e:4x4"} | given)


def test_further_meshes_are_tried_until_one_fits(tmp_path, monkeypatch):
    sizes = {"arguments": 8 * 2**30, "temporary": 2**30, "outputs": 0, "code": 0}

    def compiler(job):
        big = 20 * 2**30 if job["method"] == "grpo" and "model" not in job["mesh"] else 0
        found = {"parameters": 8, "bytes": sizes | {"temporary": sizes["temporary"] + big}, "compile_s": 1.0}
        return found | {"collectives": {"all-gather": (2, 2 * 2**30)}}

    monkeypatch.setattr(scale_plan, "compiled", compiler)
    ledger = Ledger(tmp_path / "metrics.jsonl", scale_plan.KEYS)
    text = scale_plan.work(options(), ledger, tmp_path)
    found = [(row["method"], row["mesh"], row["fits"]) for row in ledger.rows]
    assert found == [("dpo", "fsdp 16", True), ("grpo", "fsdp 16", False), ("grpo", "fsdp 8 x model 2", True)]
    assert "fsdp 8 x model 2" in text and (tmp_path / "plot.png").stat().st_size > 1000
    assert ledger.rows[0]["peak_gib"] == 9 and ledger.rows[0]["all-gather_gib"] == 2
    monkeypatch.setattr(scale_plan, "compiled", None)  # nothing is compiled twice
    scale_plan.work(options(), ledger, tmp_path)


def test_a_refusal_of_the_compiler_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_plan, "compiled", lambda job: {"error": "RESOURCE_EXHAUSTED: too much"})
    row = scale_plan.row_of(options(), next(scale_plan.cases(options(), Ledger(tmp_path / "rows", scale_plan.KEYS))))
    assert row["fits"] is False and "RESOURCE_EXHAUSTED" in row["error"]


def test_a_topology_that_is_not_known_is_named():
    with pytest.raises(UserError, match="--topologies=v4:2x2x2: unknown 'v4:2x2x2'. Known: v5e, v5p, v6e, h200"):
        options(topologies="v4:2x2x2")


def test_operations_count_every_weight():
    shape = scale_plan.MODELS["llama_8b"]
    model = models.build(shape)
    assert model.shapes is not None
    weights = sum(np.prod(x.shape) for x in jax.tree.leaves(model.shapes()) if len(x.shape) > 1)
    once = scale_plan.operations(shape, 1, 0, 1)  # one token of a response: attention counts next to nothing
    embedding = shape["vocab_size"] * shape["hidden_size"]
    norms = 2 * shape["num_layers"] * shape["hidden_size"]  # stacked over layers, and so of two dimensions
    np.testing.assert_allclose(once, 10 * (weights - embedding - norms), rtol=1e-4)
    adapted = scale_plan.operations(scale_plan.MODELS["llama_8b_lora"], 1, 0, 1)
    np.testing.assert_allclose(adapted / once, 0.8, rtol=1e-4)  # a frozen weight has no gradient


def test_a_compiler_that_was_killed_is_no_row(monkeypatch):
    ended = subprocess.CompletedProcess([], -9, "", "libtpu says something")
    monkeypatch.setattr(scale_plan.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(UserError, match="ended by signal 9: the same command goes on"):
        scale_plan.compiled({})

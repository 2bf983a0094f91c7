"""The benchmark does the work it says, on the workload of the peers."""

import importlib.util
import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import bench_dpo, floor, workload
from rlx import models

CONSTANTS = [name for name in vars(workload) if name.isupper() and name != "MODEL"]


def peers():
    """The workload as the peers have it (``RLX_BENCH_DIR``), or ours where that folder is not given."""
    folder = os.environ.get("RLX_BENCH_DIR")
    if folder is None:
        return workload
    spec = importlib.util.spec_from_file_location("peer_workload", Path(folder) / "common.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_workload_is_that_of_the_peers():
    theirs = peers()
    assert len(CONSTANTS) == 24
    assert {name: getattr(workload, name) for name in CONSTANTS} == {n: getattr(theirs, n) for n in CONSTANTS}
    for function in ("preference_pairs", "rl_prompts"):
        ours, other = getattr(workload, function)(), getattr(theirs, function)()
        jax.tree.map(np.testing.assert_array_equal, ours, other)
    assert workload.toy_reward([2, 3, 5]) == theirs.toy_reward([2, 3, 5])


def test_batches_hold_every_pair_in_order():
    prompt, chosen, rejected = workload.preference_pairs()
    assert chosen.max() < workload.VOCAB // 2 <= rejected.min()
    batches = list(workload.preference_batches())
    assert len(batches) == workload.PREF_STEPS + workload.PREF_WARMUP
    tokens = np.concatenate([batch["tokens"] for batch in batches[: workload.N_PAIRS // workload.PAIR_BATCH]])
    np.testing.assert_array_equal(tokens[:, 0], np.concatenate([prompt, chosen], 1))
    np.testing.assert_array_equal(tokens[:, 1], np.concatenate([prompt, rejected], 1))
    assert batches[0]["where"].sum() == 2 * workload.PAIR_BATCH * workload.RESPONSE_LEN


@pytest.fixture
def tiny(monkeypatch):
    """The same shapes of work at a hundredth of the size."""
    sizes = {"vocab_size": 64, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_dim": 4}
    monkeypatch.setattr(workload, "MODEL", workload.MODEL | sizes | {"intermediate_size": 16})
    for name, value in {"VOCAB": 64, "HIDDEN": 8, "N_PAIRS": 8, "PAIR_BATCH": 2, "RESPONSE_LEN": 6}.items():
        monkeypatch.setattr(workload, name, value)
    monkeypatch.setattr(workload, "PROMPT_LEN", 3)


@pytest.mark.parametrize("flags", [["--layers=list", "--no-remat"], ["--reference=cached", "--prototype"]])
def test_prints_the_line_of_the_peers(tiny, capsys, flags):
    bench_dpo.main(["--steps=4", "--no-trim", *flags])  # the allocator of the other tests stays as it is
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["peer"], line["task"], line["tokens_per_step"]) == ("rlx", "dpo", 2 * 2 * (3 + 6))
    assert line["margin_first"] == pytest.approx(0, abs=1e-6) and line["margin_last"] != 0
    assert ("ratio_to_bare" in line) == ("--prototype" in flags)
    assert {"gflop", "floor_cpu_s", "floor_share"} <= set(line) and line["gflop_per_cpu_s"] > 0


def test_the_floor_counts_the_matrix_products_of_the_compiled_forward_pass():
    model = models.build(workload.MODEL)
    tokens = np.zeros((2, 24), np.int32)

    def logits(params, tokens):
        hidden, unembedding = model.apply(params, tokens, None)
        return hidden.reshape(-1, hidden.shape[-1]) @ unembedding

    found = jax.jit(logits).lower(model.init(0), tokens).compile().cost_analysis()["flops"]
    assert floor.forward_gflop(2, 24, 24) * 1e9 == pytest.approx(found, rel=0.02)


def test_prototype_and_library_compute_the_same(tiny):
    """The ratio compares equals: the same losses on the same batches."""
    model = models.build(bench_dpo.model_config("list", False))
    batches = list(workload.preference_batches(3))
    losses = {}
    for name, make in (("rlx", bench_dpo.library_step), ("bare", bench_dpo.bare_step)):
        step, state, frozen = make(model, "on_the_fly")
        losses[name] = []
        for batch in batches:
            state, out = step(state, batch, frozen)
            losses[name].append(float(out["loss"] if name == "bare" else out["loss"].value))
    np.testing.assert_allclose(losses["rlx"], losses["bare"], rtol=1e-6)


def test_no_product_of_the_step_contracts_two_dimensions(tiny):
    """Tokens are flattened before every projection; attention contracts one dimension too."""
    model = models.build(bench_dpo.model_config("list", False))
    step, state, frozen = bench_dpo.library_step(model, "on_the_fly")
    text = step.lower(state, next(workload.preference_batches(1)), frozen).as_text()
    contracted = re.findall(r"dot_general.*?contracting_dims = \[([^\]]*)\]", text)
    assert len(contracted) > 50 and not any("," in dims for dims in contracted)

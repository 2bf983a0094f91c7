"""Every benchmark at toy size: the forms run, the errors are small, the table and the JSON say what could not."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "kernels" / "benchmarks"


def load(name):
    """A module of the folder, which is a place of scripts and no package."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


common, forms, oracle, shapes = (load(name) for name in ("common", "forms", "oracle", "shapes"))


@pytest.mark.parametrize("name", ["token_statistics", "linear_token_statistics", "fused_linear_token_loss"])
def test_every_form_runs_or_says_why_not(name, tmp_path, capsys):
    path = tmp_path / "out.json"
    rows = load(name).main(["--shape", "12,8,130", "--repeats", "2", "--json", str(path)])
    saved = json.loads(path.read_text())
    assert saved["rows"] == rows and saved["versions"]["jax"] and saved["load"]
    printed = capsys.readouterr().out
    for row in rows:
        assert row["form"] in printed
        if "reason" in row:
            assert not row["form"].startswith(("jax", "rlx")), row
            continue
        assert 0 < row["wall_min_ms"] <= row["wall_ms"]
        kinds = ("logp_error", "entropy_error") if row["pass"] == "forward" else ("gradient_error",)
        if row["form"] == "rlx fused loss" and row["pass"] == "forward":
            kinds = ()  # it gives the sum alone
        if row["form"].startswith(("jax", "rlx")):
            assert all(row[kind] < 1e-5 for kind in kinds) and row["temp_mib"] >= 0, row
    assert {row["pass"] for row in rows if row["form"] == "rlx xla"} == {"forward", "forward+backward"}


def test_a_package_that_is_absent_is_named_in_the_table():
    def build(case):
        return forms.needed("a_package_that_nobody_has")

    case = shapes.make(shapes.parse("4,3,10"), "float32", given=True)
    rows = common.measure([forms.Form("jax naive", forms.naive), forms.Form("peer", build)], [case], 1, 1)
    absent = [row for row in rows if row["form"] == "peer"]
    assert [row["reason"] for row in absent] == ["not installed (a_package_that_nobody_has)"] * 2
    assert "| peer | forward | not installed (a_package_that_nobody_has) |" in common.table(rows)


def test_a_form_that_fails_costs_no_other():
    def build(case):
        raise MemoryError("too large")

    case = shapes.make(shapes.parse("4,3,10"), "float32", given=True)
    rows = common.measure([forms.Form("broken", build), forms.Form("jax naive", forms.naive)], [case], 1, 1)
    assert rows[0]["reason"] == "failed: MemoryError: too large" and rows[1]["wall_ms"] > 0


def test_a_form_without_entropy_is_held_to_its_own_loss():
    """Liger and Cut Cross-Entropy have none: their gradients are of the log-probabilities alone."""

    class LogpOnly(forms.Compiled):
        def __init__(self, case):
            super().__init__(lambda x, t: (load("plain").given(x, t)[0], 0.0), case)
            self.entropy = False

        def forward(self, case):
            return super().forward(case)[0], None

    case = shapes.make(shapes.parse("9,3,50"), "float32", given=True)
    found = common.check(LogpOnly(case), oracle.Oracle(case))
    assert set(found["forward"]) == {"logp_error"} and found["forward+backward"]["gradient_error"] < 1e-5


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_oracle_sees_a_wrong_gradient(given, softcap):
    shape = shapes.Shape(7, 5, 600, softcap)
    case = shapes.make(shape, "float32", given=given)
    truth = oracle.Oracle(case)
    runner = forms.naive(case)
    values, gradients = runner.forward(case), runner.both(truth.chosen)
    right = truth.errors(values, gradients, entropy=True)
    assert max(right.values()) < 2e-6
    wrong = truth.errors(values, tuple(1.01 * np.asarray(g) for g in gradients), entropy=True)
    assert wrong["gradient_error"] == pytest.approx(0.01, rel=1e-2)
    assert truth.errors((values[0] + 1, values[1]), gradients, entropy=True)["logp_error"] == pytest.approx(1, rel=1e-5)


def test_shapes_have_the_names_of_models():
    assert shapes.parse("llama-3-8b") == (8192, 4096, 128256, None)
    assert shapes.parse("gemma-2-2b").softcap == 30 and shapes.parse("1,2,3").text == "1,2,3"
    with pytest.raises(ValueError, match="neither N,D,V nor one of qwen2.5-0.5b"):
        shapes.parse("llama")


def test_an_unknown_shape_is_refused_on_the_command_line(capsys):
    with pytest.raises(SystemExit):
        load("token_statistics").main(["--shape", "12,8"])
    assert "invalid parse value: '12,8'" in capsys.readouterr().err


def test_selections_agree_with_the_plain_form(capsys):
    rows = load("selection").main(["--tokens", "3000", "--repeats", "2"])
    selected = {row["form"]: row.get("selected") for row in rows}
    assert selected["jax naive"] == selected["rlx kl_cov_select"] == 1
    assert "torch (verl's KL-Cov)" in selected and "tokens selected" in capsys.readouterr().out


def test_memory_is_told_in_copies_of_the_logits(capsys):
    for method in ("rlx", "rlx_tied", "jax_plain"):
        load("memory_logprob").main([method, "--shape", "16,4,64"])
        line = json.loads(capsys.readouterr().out)
        assert line["peer"] == method and line["logits_mib"] == 16 * 64 * 4 / 2**20
        assert np.isfinite(line["value"]) and line["peak_over_inputs_mib"] >= 0


def test_the_plan_for_a_gpu_runs_at_toy_size(tmp_path, capsys):
    plan, path = load("gpu_plan"), tmp_path / "plan.json"
    assert plan.main(["--toy", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert (
        len(found["tables"]) == 2 and found["not_run"] == [] and set(found["ceilings"]) == {"tb_per_s", "tflop_per_s"}
    )
    assert all(row["right"] for row in found["correctness"])
    assert "not run, for want of time: nothing" in capsys.readouterr().out


def test_the_plan_names_what_it_has_no_time_for():
    found = {"tables": {}, "not_run": []}
    assert not list(load("gpu_plan").tables(found, True, 0.0))
    assert found["not_run"] == ["given logits 64,16,300 bfloat16", "head 64,16,300 bfloat16"]


def test_the_plan_wants_an_accelerator(capsys, tmp_path):
    with pytest.raises(SystemExit):
        load("gpu_plan").main(["--json", str(tmp_path / "plan.json")])
    assert "no accelerator here" in capsys.readouterr().err


def test_the_plan_keeps_to_sizes_that_no_cache_holds():
    plan = load("gpu_plan").plan(False)
    assert plan[0][0][0] == 8192 and (8192, 1, 151936, None) in [tuple(shape) for shape, _, given in plan if given]
    assert sum(not given for *_, given in plan) == len(load("gpu_plan").HEADS)

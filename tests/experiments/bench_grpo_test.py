"""The benchmark prints the line that the peers' scripts print; its prototype learns the same."""

import json

import numpy as np
import pytest

from experiments import bench_grpo, bench_grpo_bare
from experiments import workload as c
from experiments.bench_dpo import model_config
from rlx import metrics, models


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    monkeypatch.setitem(c.MODEL, "num_layers", 1)


def test_prints_the_peers_line_and_the_ratio_to_the_prototype(capsys):
    bench_grpo.main(["--steps=3", "--no-trim", "--prototype"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["peer"], line["task"], line["steps_timed"]) == ("rlx", "grpo", 1)
    assert 0 <= line["reward_first"] <= 1 and {"sample_cpu_s", "update_cpu_s", "cpu_s_per_step"} <= set(line)
    assert line["ratio_to_bare"] > 0


def test_the_prototype_is_the_same_mathematics():
    model = models.build(model_config("list", False))
    library, now = bench_grpo.library_step(model, 0.9, {"sample": [], "update": []})
    bare, state = bench_grpo_bare.make_step(model, 0.9, np.asarray(now.key))
    for i, tokens in enumerate(c.rl_prompts(8).reshape(2, 4, -1)):
        (now, (_, reported)), (state, values) = library(now, i, tokens), bare(state, i, tokens)
        rounding = 1e-3 if i else 1e-5  # Adam makes a step of the sign of a gradient that is nothing but rounding
        found = metrics.values(reported)
        np.testing.assert_allclose(found["loss"], values["loss"], rtol=rounding, atol=1e-6)
        np.testing.assert_allclose(found["grad_norm"], values["grad_norm"], rtol=rounding)

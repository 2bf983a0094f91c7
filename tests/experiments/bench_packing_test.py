"""The benchmark compares steps that compute the same, and prints a line per case."""

import json

from experiments import bench_packing, workload


def test_prints_a_line_per_case(monkeypatch, capsys):
    sizes = {"vocab_size": 64, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "head_dim": 4}
    monkeypatch.setattr(workload, "MODEL", workload.MODEL | sizes | {"intermediate_size": 16})
    monkeypatch.setattr(workload, "VOCAB", 64)
    for name, value in {"PROMPT": 4, "RESPONSE": 8, "GROUPS": {"grpo": (2, 4)}}.items():
        monkeypatch.setattr(bench_packing, name, value)
    bench_packing.main(["--methods=grpo", "--fills=0.3", "--multiple=1", "--steps=1", "--no-trim"])
    line = json.loads(capsys.readouterr().out)
    assert (line["method"], line["fill"]) == ("grpo", 0.3) and line["real"] <= line["places"] < 0.8
    assert line["flops"] < 1 and line["memory"] > 0 and line["cpu"] > 0 and "jax" in line["versions"]
    assert line["loss_apart"] < 1e-5 and line["grad_norm_apart"] < 1e-5

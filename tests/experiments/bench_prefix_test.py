"""The benchmark compares forms that compute the same, and prints a line per case."""

import json

import pytest

from experiments import bench_prefix, workload


@pytest.fixture
def tiny(monkeypatch):
    """The same shapes of work at a hundredth of the size."""
    sizes = {"vocab_size": 64, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_dim": 4}
    monkeypatch.setattr(workload, "MODEL", workload.MODEL | sizes | {"intermediate_size": 16})
    for name, value in {"VOCAB": 64, "PROMPT_LEN": 4, "RESPONSE_LEN": 8}.items():
        monkeypatch.setattr(workload, name, value)


def test_prints_a_line_per_case(tiny, capsys):
    options = "--prompt_lengths 12 --groups 6 --response_length 4 --shortest 0.1 --capacity 2 --sequences 8 --steps 1"
    bench_prefix.main(options.split())
    shared, packed = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (shared["task"], shared["prompt"], shared["group"]) == ("shared", 12, 6)
    assert shared["tokens"] == pytest.approx((12 + 6 * 4) / (6 * 16)) and shared["flops"] < 0.7
    assert packed["task"] == "packed" and packed["real"] <= packed["tokens"] < 1
    for line in (shared, packed):
        assert line["gradient_apart"] < 1e-5 and line["logprob_apart"] < 1e-5
        assert line["memory"] > 0 and line["cpu"] > 0


def test_compares_steps_of_the_trainer(tiny, capsys):
    options = "--prompt_lengths 12 --groups 6 --response_length 4 --steps 1 --train_step"
    bench_prefix.main(options.split())
    line = json.loads(capsys.readouterr().out)
    assert line["task"] == "step" and line["flops"] < 0.8 and line["cpu"] > 0
    assert line["loss_apart"] < 1e-5 and line["grad_norm_apart"] < 1e-5

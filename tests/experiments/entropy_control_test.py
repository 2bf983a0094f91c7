"""Entropy under control: a run through the trainer at smoke size, measures of made-up runs, claims on made-up rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import entropy_control as experiment
from experiments import entropy_control_claims as claims
from experiments import frame
from rlx.report.rows import read_rows

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png", "runs", "cache"}


def test_smoke_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))  # the tests' own cache stays
    argv = ["--smoke", f"--workdir={tmp_path}"]
    frame.run(experiment.FRAME, argv)
    assert {file.name for file in tmp_path.iterdir()} <= FILES
    (row,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert row["method"] == "aepo_0.5" and row["sft_steps"] == 5 and row["miss"] > 0
    steps = read_rows(tmp_path / "runs" / "aepo_0.5_1000" / "metrics.jsonl")
    assert {round(step["temperature"], 3) for step in steps} == {0.8}  # far above the target
    assert "verdict" not in capsys.readouterr().out
    frame.run(experiment.FRAME, argv)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def run_of(entropy: np.ndarray, reward: np.ndarray) -> list[dict[str, float]]:
    return [
        {"rollout_entropy": h, "reward": r, "covariance": 0.1 if i % 10 else -0.1}
        for i, (h, r) in enumerate(zip(entropy, reward, strict=True))
    ]


def test_measures_of_a_run_that_follows_the_law() -> None:
    entropy = np.linspace(1.0, 0.2, 320)
    rows = run_of(entropy, 0.9 - 0.3 * np.exp(entropy))
    found = claims.measures(rows, "aepo_0.25", experiment.get_config("default"))
    end = entropy[-20:].mean()
    expected = {"a": 0.3, "b": 0.9, "r2_exp": 1, "rmse_exp": 0, "positive": 0.9, "fall": 1 - end, "entropy": end}
    expected |= {"jump": 0.8 / 319, "miss": np.abs(entropy[160:] - 0.25).mean() / 0.25}
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-3, err_msg=key)
    assert found["gain"] == pytest.approx(found["reward"] - found["start_reward"]) and found["r2_line"] < 0.999
    assert {len(values) for values in found["curve"].values()} == {33}
    assert "miss" not in claims.measures(rows, "grpo", experiment.get_config("default"))


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(size: str) -> None:
    cells = experiment.cells(experiment.get_config(size))
    assert len({tuple(cell[key] for key in experiment.FRAME.keys) for cell in cells}) == len(cells) > 0
    assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


@pytest.mark.parametrize("method", sorted(experiment.METHODS))
def test_a_method_differs_from_others_in_its_loss_alone(method: str) -> None:
    config = experiment.get_config("default")
    own, grpo = (experiment.of_method(config, 3, name, Path("start")).to_dict() for name in (method, claims.GRPO))
    assert own.pop("method") is not None and own["rl"]["rollout"].pop("tempered") == (
        experiment.METHODS[method].get("tempered", {})
    )
    del grpo["method"], grpo["rl"]["rollout"]["tempered"]
    assert own == grpo and own["seed"] == 3 and own["stages"] == ("rl",) and own["start"] == "start"


def test_claims_follow_the_rows() -> None:
    """Everything as the papers say, then everything the other way round."""
    config = experiment.get_config("default")
    for good, verdict in ((1.0, "reproduced"), (-1.0, "not reproduced")):
        rows: list[dict[str, Any]] = []
        for cell in experiment.cells(config):
            ours, noise = good * (cell["method"] != claims.GRPO), cell["seed"] / 1e5
            row = {"start_reward": 0.2 - 0.1 * good, "gain": 0.35 + 0.1 * good, "fall": 0.5 + 0.2 * good}
            row |= {"r2_exp": 0.9 + 0.05 * good + noise, "r2_line": 0.9, "rmse_exp": 0.1 - 0.05 * good}
            row |= {"positive": 0.9 + 0.1 * good, "correlation": 0.5 + 0.2 * good, "miss": 0.15 - 0.1 * good}
            row |= {"entropy": 1 + ours + noise, "reward": 0.5 + ours + noise, "jump": 0.5 - 0.1 * ours + noise}
            rows.append({**cell, **row})
        tested = claims.tested(config, rows)
        assert {claim.verdict for claim, _ in tested} == {verdict} and all(source for _, source in tested)

"""The entropy law end to end at smoke size, the bandit, the measures of a run, and the claims on made-up rows."""

from pathlib import Path

import numpy as np
import pytest

from experiments import entropy_law, entropy_law_bandit, entropy_law_claims, parts

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png"}
PART = entropy_law_bandit.PART


def test_smoke_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--smoke", f"--workdir={tmp_path}"]
    parts.run(entropy_law.EXPERIMENT, argv)
    assert {file.name for file in tmp_path.iterdir()} == FILES
    first = (tmp_path / "metrics.jsonl").read_text()
    assert "verdict" not in capsys.readouterr().out
    parts.run(entropy_law.EXPERIMENT, argv)
    assert (tmp_path / "metrics.jsonl").read_text() == first


def test_right_are_the_best_actions_of_a_noisy_teacher() -> None:
    bandit = entropy_law_bandit.get_config("default").bandit
    quiet = entropy_law_bandit.problem(bandit.to_dict() | {"noise": 0.0}, 1000)
    np.testing.assert_array_equal(quiet.right.sum(-1), 3)
    np.testing.assert_allclose(np.square(quiet.features).sum(-1).mean(), 1, rtol=0.05)
    noisy = entropy_law_bandit.problem(bandit, 1000)
    agreement = (quiet.right * noisy.right).sum(-1).mean() / 3
    assert 0.3 < agreement < 0.8  # better than the 3 of 16 of chance, and no linear policy gets all


def trace(entropy: np.ndarray, reward: np.ndarray) -> entropy_law_bandit.Trace:
    change = np.diff(entropy, append=entropy[-1] - 0.01)
    return entropy_law_bandit.Trace(entropy, reward, -2 * change, change, 0.5 * change)


def test_measures_of_runs_that_follow_a_law() -> None:
    config = entropy_law_bandit.get_config("default")
    entropy = np.linspace(2.7, 1.5, 400)
    found = entropy_law_bandit.measures(trace(entropy, 0.7 - 0.03 * np.exp(entropy)), config)
    for key, value in {"r2_exp": 1, "rmse_exp": 0, "a": 0.03, "b": 0.7, "identity": 0.5, "positive": 1}.items():
        np.testing.assert_allclose(found[key], value, atol=2e-4)
    assert found["r2_line"] < 0.999 and found["rmse_line"] > 0.001 and found["correlation"] == pytest.approx(1)
    assert [len(values) for values in found["curve"].values()] == [14, 14, 14]


def test_rewards_are_averaged_within_bins_of_entropy() -> None:
    points = [{"method": "m", "seed": 0, "entropy": h, "reward": r} for h, r in ((1.02, 1.0), (0.98, 3.0), (1.2, 5.0))]
    assert [(p["entropy"], p["reward"]) for p in entropy_law_claims.binned(points)] == [(1.0, 2.0), (1.2, 5.0)]


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(size: str) -> None:
    cells = parts.cells("bandit", PART, entropy_law_bandit.get_config(size))
    assert len({tuple(cell[key] for key in entropy_law.EXPERIMENT.keys) for cell in cells}) == len(cells) > 0
    assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def test_claims_follow_the_rows() -> None:
    """Everything as the paper says, then everything the other way round."""
    config = entropy_law_bandit.get_config("default")
    for good, verdict in ((1.0, "reproduced"), (-1.0, "not reproduced")):
        rows = []
        for cell in PART.cells(config):
            gain = good * (cell["method"] in ("clip_cov", "kl_cov")) + cell["seed"] / 1e5
            fit = {"r2_exp": 0.9 + 0.06 * good, "r2_line": 0.9 + cell["seed"] / 1e5, "rmse_exp": 0.05 - 0.01 * good}
            signs = {"positive": 0.9 + 0.1 * good, "correlation": 0.5 + 0.3 * good, "identity": 1.5 - 0.5 * good}
            rows.append({**cell, **fit, **signs, "entropy": 1 + gain, "reward": 0.5 + gain})
        assert {claim.verdict for claim, _ in PART.tested(config, rows)} == {verdict}

"""Difficulty bias end to end at smoke size, the discriminative term by hand, and the claims on made-up rows."""

from pathlib import Path

import numpy as np
import pytest

from experiments import difficulty_bias, difficulty_bias_weights, difficulty_bias_wrong, parts

PARTS = {"weights": difficulty_bias_weights, "wrong": difficulty_bias_wrong}


def test_smoke_runs_both_parts_and_runs_them_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--smoke", f"--workdir={tmp_path}"]
    parts.run(difficulty_bias.EXPERIMENT, argv)
    first = (tmp_path / "metrics.jsonl").read_text()
    assert "verdict" not in capsys.readouterr().out and (tmp_path / "plot.png").stat().st_size > 0
    parts.run(difficulty_bias.EXPERIMENT, argv)
    assert (tmp_path / "metrics.jsonl").read_text() == first


def test_the_term_by_hand() -> None:
    """Two answers of probability 0.6 and 0.4: the derivative of a ratio is 2 (0.6 * 0.4), of a log-probability 0.4."""
    logits, right = np.log([0.6, 0.4]), np.array([1.0, 0.0])
    np.testing.assert_allclose(difficulty_bias_weights.term(logits, right, "DisCO-b"), [0.96, -0.96])
    np.testing.assert_allclose(difficulty_bias_weights.term(logits, right, "DisCO"), [1, -1])
    # a ratio of 1.2 is still inside, both of 1.4 and 0.6 are clipped
    np.testing.assert_allclose(difficulty_bias_weights.term(np.log([0.7, 0.3]), right, "GRPO"), 0, atol=1e-15)


def test_as_many_answers_are_right_as_the_share_says() -> None:
    config = difficulty_bias_weights.get_config("default")
    logits, right = difficulty_bias_weights.policies([1000, 1001], 0.25, config)
    assert logits.shape == right.shape == (2, 64) and (right.sum(-1) == 16).all() and (right[0] != right[1]).any()


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_seeds_are_others(size: str) -> None:
    for name, module in PARTS.items():
        cells = parts.cells(name, module.PART, module.get_config(size))
        keys = [tuple(cell.get(key) for key in difficulty_bias.EXPERIMENT.keys) for cell in cells]
        assert len(set(keys)) == len(keys) > 0
        assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def test_claims_on_weights_follow_the_rows() -> None:
    config = difficulty_bias_weights.get_config("default")
    for error, verdict in ((1e-7, "reproduced"), (1e-5, "not reproduced")):
        # one share p of one policy is enough to fail
        rows = [
            {**cell, "error": error * (cell["p"] == 0.5 and cell["seed"] == 3), "left": error}
            for cell in difficulty_bias_weights.cells(config)
        ]
        assert {claim.verdict for claim, _ in difficulty_bias_weights.tested(config, rows)} == {verdict}


def test_claims_on_groups_follow_the_rows() -> None:
    config = difficulty_bias_wrong.get_config("default")
    for sign, verdict in ((1, "reproduced"), (-1, "not reproduced")):
        rows = []
        for cell in difficulty_bias_wrong.cells(config):
            taught = (cell["right"] == 0 and cell["method"] == "NGRPO") == (sign > 0)
            rows.append({**cell, "norm": float(taught), "wrong": -sign / 3})
        assert {claim.verdict for claim, _ in difficulty_bias_wrong.tested(config, rows)} == {verdict}

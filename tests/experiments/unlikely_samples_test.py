"""Unlikely samples: a run at smoke size, who is lifted in made-up batches, and claims on made-up rows."""

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import frame
from experiments import unlikely_samples as experiment
from experiments import unlikely_samples_claims as claims
from experiments import unlikely_samples_learn as lessons

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png", "runs", "cache"}


def test_smoke_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))  # the tests' own cache stays
    argv = ["--smoke", f"--workdir={tmp_path}"]
    frame.run(experiment.FRAME, argv)
    (row,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert row["method"] == claims.UNLIKELY and 0 <= row["pass@1"] <= row["pass@64"] <= 1
    assert len(row["curve"]["reward"]) == 2 and len(row["by_place_all"]) == 8
    assert {file.name for file in tmp_path.iterdir()} <= FILES
    assert "verdict" not in capsys.readouterr().out
    frame.run(experiment.FRAME, argv)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_right_samples_of_mixed_groups_are_counted_by_rank_and_rise() -> None:
    """Two groups of three; the second, all right, is not real. Lengths differ: the mean of a token ranks."""
    logprobs = np.array([[[-1.0, -1.0], [-1.5, 0.0], [-2.0, -4.0]], [[-1.0, 0.0]] * 3])
    batch = {
        "old_logprobs": logprobs,
        "where": np.array(
            [[[False, True, True], [False, True, False], [False, True, True]], [[False, True, False]] * 3]
        ),
        "correct": np.array([[1, 0, 1], [1, 1, 1]]),
        "candidate_where": np.array([[True] * 3, [False] * 3]),
    }
    places, rises = lessons.lifted(batch, np.array([[-1.9, -9.0, -6.5], [0.0] * 3]))
    np.testing.assert_array_equal(places, [0.0, 1.0])
    np.testing.assert_array_equal(rises, [True, False])


def test_places_shares_and_answers_of_the_docstrings() -> None:
    found = doctest.testmod(lessons)
    assert found.failed == 0 and found.attempted == 4


def test_shares_and_slope_of_what_is_not_there_are_none() -> None:
    nothing = lessons.by_rank(np.zeros(0), np.zeros(0, bool), "_all", bins=2)
    assert nothing == {"slope_all": None, "risen_all": None, "by_place_all": [None, None]}
    assert lessons.by_rank(np.full(3, 0.5), np.array([True, True, False]), "")["slope"] is None


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(size: str) -> None:
    cells = experiment.cells(experiment.get_config(size))
    assert len({tuple(cell[key] for key in experiment.FRAME.keys) for cell in cells}) == len(cells) > 0
    assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def test_methods_differ_in_what_they_say_alone() -> None:
    once, grpo, unlikely = (experiment.METHODS[name] for name in (claims.ONCE, claims.GRPO, claims.UNLIKELY))
    assert once["method"] == grpo["method"] and (once["epochs"], grpo["epochs"], unlikely["epochs"]) == (1, 2, 2)
    assert unlikely["method"] == {**grpo["method"], "advantage": "unlikeliness(beta=0.25)"}
    assert experiment.get_config("smoke").rl.optimizer == experiment.get_config("default").rl.optimizer


def row_of(cell: dict[str, Any], good: float) -> dict[str, Any]:
    """Numbers in the order that the paper has them in (``good`` 1), or in the other (-1)."""
    place = [claims.START, claims.ONCE, claims.GRPO, claims.UNLIKELY].index(cell["method"])
    noise = cell["seed"] / 1e5
    slope = ((0, -0.3, -0.2, -0.1) if good > 0 else (0, 0.2, 0.1, -0.3))[place] + noise
    row = {"pass@1": good * (0, 0.2, 0.3, 0.3 if good > 0 else 0.4)[place] + noise, "distinct": good * place + noise}
    row |= {f"pass@{k}": good * (0.5, 0.3, 0.4, 0.6)[place] + noise for k in (16, 64)}
    return row | ({} if place == 0 else {"slope": slope, "slope_all": slope})


def test_claims_follow_the_rows() -> None:
    for good, verdict in ((1.0, "reproduced"), (-1.0, "not reproduced")):
        rows = [{**cell, **row_of(cell, good)} for cell in experiment.cells(experiment.get_config("default"))]
        tested = claims.tested(rows)
        assert {claim.verdict for claim, _ in tested} == {verdict} and all(source for _, source in tested)
        assert len({claim.claim for claim, _ in tested}) == len(tested)

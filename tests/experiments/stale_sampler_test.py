"""Stale samplers on a transformer: a run through the trainer at smoke size, and claims on made-up rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import frame
from experiments import stale_sampler as experiment
from rlx.report.rows import read_rows


def test_smoke_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))  # the tests' own cache stays
    argv = ["--smoke", f"--workdir={tmp_path}"]
    frame.run(experiment.FRAME, argv)
    (row,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert row["curve"]["step"] == [2, 4] and 0 <= row["final"] <= row["peak"]
    (folder,) = (tmp_path / "runs").glob("*rec_one_side_loss*")
    assert [step["staleness"] for step in read_rows(folder / "metrics.jsonl") if step["split"] == "train"] == [0, 1] * 2
    assert "verdict" not in capsys.readouterr().out and (tmp_path / "plot.png").stat().st_size > 10_000
    frame.run(experiment.FRAME, argv)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def rows_of(config: Any, final: dict[str, float], peak: float) -> list[dict[str, Any]]:
    return [
        {**cell, "first_update": 1.0, "final": final[cell["method"]], "drop": 1 - final[cell["method"]] / peak}
        for cell in experiment.cells(config)
    ]


def test_claims_hold_and_fail_as_they_say() -> None:
    config = experiment.get_config("default")
    names = (experiment.GRPO, experiment.NARROW, experiment.WIDE, experiment.VANILLA)
    rows = rows_of(config, dict(zip(names, (0.4, 0.41, 0.6, 0.1), strict=True)), 0.6)
    verdicts = {claim.claim: claim.verdict for claim, _ in experiment.tested(config, rows)}
    assert len(verdicts) == 16 and set(verdicts.values()) == {"reproduced"}
    rows = rows_of(config, dict(zip(names, (0.2, 0.4, 0.3, 0.5), strict=True)), 0.6)
    found = [claim.verdict for claim, _ in experiment.tested(config, rows)]
    assert found.count("reproduced") == 3 + 2 * 2  # first updates; the two with a clip that keep half of their peak


@pytest.mark.parametrize("size", ["smoke", "default", "full"])
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(size: str) -> None:
    cells = experiment.cells(experiment.get_config(size))
    assert len({tuple(cell[key] for key in experiment.FRAME.keys) for cell in cells}) == len(cells) > 0
    assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)

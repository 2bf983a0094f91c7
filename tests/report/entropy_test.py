"""Reward against entropy: curves, fits and the report of run directories, on made-up metrics."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rlx.errors import UserError
from rlx.report import __main__ as cli
from rlx.report import entropy
from rlx.report.loggers import JsonlLogger
from rlx.report.run_report import compare_entropy, write_report


def make_run(folder: Path, steps: int = 100, every: int = 1, a: float = 0.3, covariance: bool = True) -> Path:
    """A run that follows R = -a exp(H) + 0.9 to the letter."""
    logger = JsonlLogger(folder / "metrics.jsonl")
    logger.write(5, "sft", "train", {"loss": 1.0})
    for step in range(every, steps + 1, every):
        h = 1.0 - 0.9 * step / steps
        row = {"reward": 0.9 - a * np.exp(h), "rollout_entropy": h}
        logger.write(step, "rl", "train", row | ({"covariance": 0.1} if covariance else {}))
    logger.write(steps, "rl", "eval", {"accuracy": 0.5, "reward": 0.5})
    logger.close()
    (folder / "config.json").write_text(json.dumps({"method": {"name": "clip_cov"}}))
    return folder


def rows_of(steps: int, every: int = 1) -> list[dict]:
    return [
        {"stage": "rl", "step": i, "split": "train", "reward": i / steps, "rollout_entropy": 2 - i / steps}
        for i in range(every, steps + 1, every)
    ]


def test_a_run_on_the_law_is_fitted_and_foretold() -> None:
    h = np.linspace(1.0, 0.1, 200)
    law = entropy.fit(h, 0.9 - 0.3 * np.exp(h), 1)
    assert (law.exponential.a, law.exponential.b) == (pytest.approx(0.3), pytest.approx(0.9))
    assert law.exponential.r_squared == pytest.approx(1) and law.line.r_squared < 0.999
    assert law.error < 1e-9 < 0.01 < law.line_error


def test_the_fit_of_the_early_steps_sees_no_later_ones() -> None:
    h, r = np.linspace(1.0, 0.1, 100), np.linspace(0, 1, 100)
    moved = np.where(np.arange(100) < 36, r, r + 5)
    laws = [entropy.fit(h, reward, 10) for reward in (r, moved)]
    assert laws[1].error - laws[0].error == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize(("every", "window"), [(1, 20), (10, 2), (50, 1)])
def test_averages_are_over_twenty_steps_however_often_a_run_reports(every: int, window: int) -> None:
    one = entropy.curve(rows_of(400, every), "a")
    assert one.window == window and one.covariance is None
    assert len(one.smooth(one.reward)) == 400 // every - window + 1
    assert one.law is not None or one.note


def test_short_and_constant_runs_are_drawn_without_a_fit(tmp_path: Path) -> None:
    short = entropy.curve(rows_of(12), "a")
    assert short.law is None and short.note == "only 12 steps: a fit needs averages over 20."
    few = entropy.curve(rows_of(40), "b")
    assert few.law is None and few.note.startswith("40 rows: the first 36% of them give less than two averages")
    flat = entropy.curve([row | {"rollout_entropy": 1.0} for row in rows_of(100)], "c")
    assert flat.law is None and flat.note.startswith("All entropies are 1")
    found = entropy.write_entropy_report({"a": rows_of(12), "b": rows_of(100)}, tmp_path)
    assert "R2" not in found[0] and found[1]["R2 of a line"] == pytest.approx(1)
    assert "a: only 12 steps" in (tmp_path / "entropy.html").read_text()


def test_a_run_of_rl_reports_by_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    write_report(run)
    assert {*entropy.FILES} <= {path.name for path in run.iterdir()}
    assert (run / "entropy.png").read_bytes().startswith(b"\x89PNG")
    assert "| r (clip_cov) |" in (run / "entropy.md").read_text()


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, a=a, covariance=a > 0.2) for name, a in (("<a>", 0.3), ("b", 0.1))]
    table = compare_entropy(runs, tmp_path / "out")
    page = (tmp_path / "out" / "entropy.html").read_text()
    assert re.findall(r'(?:src|href)="(.{10})', page) == ["data:image"]
    assert "&lt;a&gt; (clip_cov)" in page and "<a>" not in page
    assert [row.get("Cov > 0") for row in table] == [1.0, None]
    assert table[1]["a"] == pytest.approx(0.1, rel=0.01) and table[0]["R2"] == pytest.approx(1)


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / parent / "run") for parent in ("x", "y")]
    assert [row["run"] for row in compare_entropy(runs, tmp_path)] == [str(run) for run in runs]


def test_a_run_without_responses_is_named(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "a" / "metrics.jsonl")
    logger.write(1, "sft", "train", {"loss": 1.0})
    logger.close()
    message = "a has no rows with reward and rollout_entropy: only the stage 'rl' draws responses. Its stages: sft."
    with pytest.raises(UserError, match=message):
        cli.main(["entropy", str(tmp_path / "a")])
    assert write_report(tmp_path / "a") and not (tmp_path / "a" / "entropy.png").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run(tmp_path / name)) for name in "ab"]
    assert cli.main(["entropy", runs[0]]) == 0 and (tmp_path / "a" / "entropy.html").exists()
    assert cli.main(["entropy", *runs, f"--out={tmp_path / 'both'}"]) == 0
    assert "written: " in capsys.readouterr().out and (tmp_path / "both" / "entropy.png").exists()
    for argv, message in (
        (["entropy"], "name a run"),
        (["entropy", *runs], "say where it goes with --out=DIR"),
        (["entropy", runs[0], "--dir=x"], "unknown argument --dir=x"),
        (["entropy", str(tmp_path / "c")], "c is not a run directory"),
    ):
        with pytest.raises(UserError, match=message):
            cli.main(argv)

"""The noisy-label experiment end to end: files, resuming, verdicts, and errors in the call."""

import json
import types
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from experiments import frame, rdpo_noise
from experiments.claims import greater
from experiments.ledger import Ledger
from rlx.errors import UserError

FILES = {"config.json", "metrics.jsonl", "table.md", "table.csv", "plot.png"}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_smoke_runs_both_parts_and_runs_them_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--smoke", f"--workdir={tmp_path}"]
    frame.run(rdpo_noise.FRAME, argv)
    assert {file.name for file in tmp_path.iterdir()} == FILES
    rows = rows_of(tmp_path)
    parts = [(row["part"], row["method"], row["seed"]) for row in rows]
    assert len(parts) == 12 == len(set(parts)) and {part for part, *_ in parts} == {"A", "B"}
    assert all(0 <= row["kl"] < 10 and abs(row["reward"]) < 10 for row in rows)
    printed = capsys.readouterr().out
    assert "not read" in printed and "verdict" not in printed
    table = (tmp_path / "table.csv").read_text()
    assert table.count("\n") == 7 and "reward_low" in table

    frame.run(rdpo_noise.FRAME, argv)
    assert rows_of(tmp_path) == rows


class FakeRunner:
    """Counts the rows it is asked for."""

    asked: list[tuple[str, int]] = []

    def __init__(self, config: ConfigDict):
        self.config = config

    def program(self, cell: dict[str, Any]) -> str:
        return cell["method"]

    def row(self, cell: dict[str, Any]) -> dict[str, float]:
        self.asked.append((cell["method"], cell["seed"]))
        return {"reward": {"rdpo": 2.0, "dpo": 1.0}[cell["method"]] + cell["seed"]}


@pytest.fixture
def fake_part(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """An experiment with one part, two methods and three seeds."""
    common = {"part": "A", "config": "c", "table": "t", "flip_rate": 0.2, "epsilon": 0.2, "pairs": 1}
    part = types.SimpleNamespace(
        PART="A",
        TITLE="A. Fake",
        METRICS=("reward",),
        Runner=FakeRunner,
        get_config=lambda size: ConfigDict({"size": size}),
        cells=lambda config: [{**common, "method": m, "seed": s} for m in ("rdpo", "dpo") for s in range(3)],
        tested=lambda config, rows: [greater("rdpo > dpo", rows, "reward", {"method": "rdpo"}, {"method": "dpo"})],
        setting=lambda config, rows: f"{len(rows)} rows.",
        plotted=lambda rows: ("reward", [{**row, "value": row["reward"]} for row in rows]),
    )
    monkeypatch.setattr(rdpo_noise, "PARTS", {"A": part})
    monkeypatch.setattr(FakeRunner, "asked", [])
    return part


def test_only_missing_rows_are_computed(tmp_path: Path, fake_part: types.SimpleNamespace) -> None:
    argv = [f"--workdir={tmp_path}"]
    frame.run(rdpo_noise.FRAME, argv)
    assert len(FakeRunner.asked) == 6
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lost = json.loads(lines[2])
    path.write_text("".join(lines[:2] + lines[3:]) + '{"part": "A", "meth')
    frame.run(rdpo_noise.FRAME, argv)
    assert FakeRunner.asked[6:] == [(lost["method"], lost["seed"])]
    assert sorted(map(str, rows_of(tmp_path))) == sorted(str(json.loads(line)) for line in lines)


def test_rows_of_other_settings_stay_out_of_the_table(tmp_path: Path, fake_part: types.SimpleNamespace) -> None:
    ledger = Ledger(tmp_path / "metrics.jsonl", rdpo_noise.KEYS)
    ledger.add({**fake_part.cells(None)[0], "config": "older", "reward": -100.0})
    frame.run(rdpo_noise.FRAME, [f"--workdir={tmp_path}"])
    assert "6 rows." in (tmp_path / "table.md").read_text() and "-100" not in (tmp_path / "table.csv").read_text()


def test_the_table_holds_the_verdict(
    tmp_path: Path, fake_part: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.run(rdpo_noise.FRAME, [f"--workdir={tmp_path}"])
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("| rdpo > dpo")]
    assert "| reproduced" in line and "1 ± 0" in line


def test_unknown_part_and_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--part=C does not exist: there are A, B"):
        frame.run(rdpo_noise.FRAME, ["--part=C", f"--workdir={tmp_path}"])
    with pytest.raises(UserError, match="Did you mean '--smoke'"):
        frame.run(rdpo_noise.FRAME, ["--smok"])


@pytest.mark.parametrize("size", ["smoke", "quickstart", "full"])
def test_cells_are_distinct_and_reported_seeds_were_not_tuned_on(size: str) -> None:
    for name, part in rdpo_noise.PARTS.items():
        cells = part.cells(rdpo_noise.get_config(size)[name])
        keys = [tuple(cell[key] for key in rdpo_noise.KEYS) for cell in cells]
        assert len(set(keys)) == len(keys) > 0
        assert all((cell["seed"] >= 1000) == (size == "smoke") for cell in cells)


def test_claims_of_both_parts_follow_the_rows() -> None:
    """Rows made up so that every claim about the order holds, then so that it fails."""
    rank = {"rdpo": 1.0, "dpo": 0.5, "cdpo": 0.2}
    for sign, verdict in ((1, "reproduced"), (-1, "not reproduced")):
        for name, part in rdpo_noise.PARTS.items():
            config = rdpo_noise.get_config("quickstart")[name]
            rows = []
            for cell in part.cells(config):
                noise = cell["seed"] / 1e4
                worth = sign * rank[cell["method"]] if cell["flip_rate"] else 1.0
                rows.append({**cell, **dict.fromkeys(part.METRICS, 1.0), "reward": worth + noise})
            order = [claim for claim in part.tested(config, rows) if ": reward of" in claim.claim]
            assert len(order) == 2 * (len(config.flip_rates) - 1)
            assert {claim.verdict for claim in order} == {verdict}

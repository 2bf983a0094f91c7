"""The comparison of twelve losses at smoke size: rows, tables and the plot; a second call computes nothing again."""

import rlx
from experiments import frame, preference_sweep
from rlx.report.rows import read_rows


def test_smoke_run_and_resume(tmp_path, capsys):
    frame.run(preference_sweep.FRAME, ["--smoke", f"--workdir={tmp_path}"])
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert len(rows) == 4 and {row["method"] for row in rows} == {"cdpo", "dpo"}
    assert {"table.md", "table.csv", "plot.png", "config.json"} <= {file.name for file in tmp_path.iterdir()}
    shown = capsys.readouterr().out
    assert "| flip_rate | method | value |" in shown and "What flips cost" not in shown
    frame.run(preference_sweep.FRAME, ["--smoke", f"--workdir={tmp_path}"])
    assert read_rows(tmp_path / "metrics.jsonl") == rows


def test_the_default_is_twelve_methods_three_rates_five_seeds():
    config = preference_sweep.get_config()
    cells = preference_sweep.cells(config)
    assert len(cells) == 12 * 3 * 5 and len({tuple(cell.values()) for cell in cells}) == len(cells)
    for cell in cells:
        assert rlx.build(preference_sweep.method_of(cell)).name == cell["method"]
    assert {cell["flip_rate"] for cell in preference_sweep.cells(preference_sweep.get_config("select"))} == {0.0}

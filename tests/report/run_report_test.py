"""Reports of run and sweep directories, made from their files alone."""

import csv
import io
import json
import math

import pytest

from rlx.errors import UserError
from rlx.report import __main__ as cli
from rlx.report import plots
from rlx.report.intervals import Interval
from rlx.report.loggers import JsonlLogger
from rlx.report.rows import dump_row
from rlx.report.run_report import compare, final_rows, write_report
from rlx.report.sweep_report import write_sweep_report
from rlx.report.tables import summarise

PNG = b"\x89PNG"


def make_run(folder, beta=0.1, extra=0):
    logger = JsonlLogger(folder / "metrics.jsonl")
    for step in range(0, 21, 5):
        logger.write(step, "sft", "train", {"loss": 2.0 - step / 20, "rate": math.nan})
    for step in range(0, 21, 5):
        many = {f"metric_{i}": float(i) for i in range(extra)}
        logger.write(step, "preference", "train", {"loss": 0.7 - beta * step / 20, **many})
        if step % 10 == 0:
            accuracy = 0.5 + beta * step / 20
            ends = {"accuracy_low": accuracy - 0.05, "accuracy_high": accuracy + 0.05}
            logger.write(step, "preference", "eval", {"loss": 0.6, "accuracy": accuracy, **ends})
    logger.close()
    config = {"seed": 0, "method": {"name": "dpo", "beta": beta}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_run_gives_table_csv_and_plot(tmp_path):
    run = make_run(tmp_path / "a")
    rows = write_report(run)
    assert [(row["stage"], row["split"], row["step"]) for row in rows] == [
        ("sft", "train", 20),
        ("preference", "train", 20),
        ("preference", "eval", 20),
    ]
    table = (run / "table.md").read_text()
    assert table.startswith("# a (dpo)\n") and "| 0.600 ± 0.050 |" in table
    last = list(csv.DictReader(io.StringIO((run / "table.csv").read_text())))[-1]
    assert (float(last["accuracy"]), float(last["accuracy_high"])) == (0.6, 0.65)
    assert (run / "plot.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "plot.png",
        "table.csv",
        "table.md",
    ]


def test_many_metrics_stand_below_each_other(tmp_path):
    run = make_run(tmp_path / "a", extra=10)
    write_report(run)
    header, _, *lines = (run / "table.md").read_text().splitlines()[2:]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "metric",
        "sft train",
        "preference train",
        "preference eval",
    ]
    assert any(line.startswith("| metric_9 ") for line in lines)


def test_a_metric_without_a_value_has_no_interval():
    row = {"stage": "sft", "step": 4, "split": "eval", "acc": None, "acc_low": 0.4, "acc_high": 0.6}
    assert final_rows([row]) == [{"stage": "sft", "split": "eval", "step": 4, "acc": None}]


def test_a_run_is_reported_while_its_last_line_is_being_written(tmp_path):
    run = make_run(tmp_path / "a")
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"stage": "preference", "st')
    assert len(write_report(run)) == 3


def test_runs_are_compared_by_what_differs(tmp_path):
    runs = [make_run(tmp_path / "a", 0.1), make_run(tmp_path / "b", 0.3)]
    first, second = compare(runs)
    assert first["method.beta"] == 0.1 and second["method.beta"] == 0.3 and "seed" not in first
    assert second["accuracy"] == Interval(0.8, 0.75, 0.8500000000000001)


def test_a_folder_without_metrics_is_named(tmp_path):
    make_run(tmp_path / "run_a")
    with pytest.raises(UserError, match=r"run_b is not a run directory: it has no metrics.jsonl. Did you mean 'run_a'"):
        write_report(tmp_path / "run_b")
    (tmp_path / "run_c").mkdir()
    (tmp_path / "run_c" / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="holds no rows yet"):
        write_report(tmp_path / "run_c")


def make_sweep(folder, n=5):
    folder.mkdir()
    lines = []
    for beta in (0.1, 0.3, 0.5):
        for method in ("dpo", "ipo"):
            for seed in range(n):
                overrides = {"method": method, "method.beta": beta, "seed": seed, "data.flip_seed": seed}
                accuracy = 0.5 + beta / 10 + 0.01 * seed
                metrics = {
                    "accuracy": accuracy,
                    "accuracy_low": 0.0,
                    "accuracy_high": 1.0,
                    "loss": math.inf,
                    "note": "x",
                }
                lines.append(dump_row({"run": f"{len(lines)}", "overrides": overrides, "metrics": metrics}))
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_sweep_gives_intervals_over_seeds(tmp_path):
    sweep = make_sweep(tmp_path / "s")
    rows = write_sweep_report(sweep)
    assert len(rows) == 6 and list(rows[0]) == ["method.name", "method.beta", "accuracy", "loss", "n"]
    assert rows[0]["n"] == 5 and rows[0]["accuracy"].n == 5
    assert "| dpo         |         0.1 | 0.530 ± 0.020 |" in (sweep / "table.md").read_text()
    assert (sweep / "plot.png").read_bytes().startswith(PNG)


def test_a_sweeps_metrics_can_be_chosen(tmp_path):
    sweep = make_sweep(tmp_path / "s")
    assert "loss" not in write_sweep_report(sweep, ["accuracy"])[0]
    with pytest.raises(UserError, match="the results have no metric 'acuracy'. Did you mean 'accuracy'?"):
        write_sweep_report(sweep, ["acuracy"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no results yet"):
        write_sweep_report(tmp_path / "empty")


def test_the_command_rebuilds_and_compares(tmp_path, capsys):
    runs = [str(make_run(tmp_path / "a", 0.1)), str(make_run(tmp_path / "b", 0.3))]
    sweep = str(make_sweep(tmp_path / "s"))
    assert cli.main([*runs, sweep]) == 0
    out = capsys.readouterr().out
    assert out.count("written: ") == 3 and "comparison\n\n| run " in out and "| method.beta |" in out
    with pytest.raises(UserError, match="unknown argument --all"):
        cli.main(["--all"])
    assert cli.main([]) == 0 and "Usage: python -m rlx.report" in capsys.readouterr().out


@pytest.mark.parametrize("values", [[0.1, 0.2], [0.1, 0.2, 0.4], [1e-5, 1e-4, 1e-3], ["dpo", "ipo", "kto"]])
def test_cells_are_drawn_as_bars_or_over_a_numeric_axis(tmp_path, values):
    rows = [{"key": value, "seed": seed, "accuracy": 0.1 * seed} for value in values for seed in range(3)]
    plots.cells(summarise(rows, ["key"], ["accuracy"]), tmp_path / "a.png", by=["key"], metrics=["accuracy"])
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_empty_plots_are_drawn(tmp_path):
    plots.curves([], tmp_path / "a.png")
    plots.cells([], tmp_path / "b.png", by=[], metrics=[])
    assert (tmp_path / "a.png").exists() and (tmp_path / "b.png").exists()

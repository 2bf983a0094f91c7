"""Plots of cells: whiskers where there are intervals, and a label that promises no interval of a single run."""

import pytest

from rlx.report import plots, tables


@pytest.mark.parametrize(("seeds", "label"), [((0,), "loss"), ((0, 1), "loss (mean, 95 % interval)")])
@pytest.mark.parametrize("names", [("a", "b"), (1, 2, 3)])
def test_one_run_has_no_interval(tmp_path, monkeypatch, seeds, label, names):
    rows = [{"method": name, "seed": seed, "loss": 1.0 + seed} for name in names for seed in seeds]
    drawn, save = [], plots.save
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure) or save(figure, path))
    plots.cells(tables.summarise(rows, ["method"], ["loss"]), tmp_path / "plot.png", by=["method"], metrics=["loss"])
    axis = drawn[0].axes[0]
    assert label in (axis.get_xlabel(), axis.get_ylabel())
    assert bool(axis.collections) == (len(seeds) > 1)  # the lines of the whiskers

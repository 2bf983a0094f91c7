"""The picture of the comparison: who is lifted, what it does to pass@k, and the reward on the way."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.parts import Row
from experiments.unlikely_samples_claims import START
from experiments.unlikely_samples_learn import TRIES
from rlx.report import plots


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Shares of lifted samples by rank, in an update and over training; pass@k; rewards of the steps."""
    figure, axes = plots.blank(4, title, height=3.8)
    for i, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        own = [row for row in rows if row["method"] == method]
        style = {"color": plots.COLOURS[(i - 1) % 7], "label": method}
        if method == START:
            _passes(axes[2], own, {"color": "0.5", "label": method, "linestyle": "--"})
            continue
        _shares(axes[0], [row["by_place"] for row in own], style)
        _shares(axes[1], [row["by_place_all"] for row in own], style)
        _passes(axes[2], own, style)
        _rewards(axes[3], [row["curve"]["reward"] for row in own], style)
    for axis, when in zip(axes, ("in an update", "from the start to the end"), strict=False):
        axis.set(xlabel="rank in the group: likeliest to rarest", ylabel="share", title=f"right samples lifted {when}")
    axes[2].set(xlabel="samples k", ylabel="pass@k", title="held-out prompts: every seed, and the mean")
    axes[2].set_xscale("log", base=2)
    axes[2].set_xticks(TRIES, [str(k) for k in TRIES])
    axes[3].set(xlabel="step", ylabel="reward", title="reward, means over 10 steps")
    axes[2].legend(frameon=False, fontsize="small")
    temporary = path.with_name(f".plot.{os.getpid()}.png")
    plots.save(figure, temporary)
    os.replace(temporary, path)


def _shares(axis, shares: Sequence[Sequence[float | None]], style: dict) -> None:
    """The share of each seed in every bin of ranks, and their mean; a bin that no seed has a sample in is left out."""
    table = np.array(shares, float)
    middles = (np.arange(table.shape[1]) + 0.5) / table.shape[1]
    for line in table:
        axis.plot(middles, line, color=style["color"], alpha=0.3, linewidth=0.7)
    filled = ~np.isnan(table).all(0)
    axis.plot(middles[filled], np.nanmean(table[:, filled], 0), marker="o", markersize=4, **style)


def _passes(axis, rows: Sequence[Row], style: dict) -> None:
    table = np.array([[row[f"pass@{k}"] for k in TRIES] for row in rows])
    for line in table:
        axis.plot(TRIES, line, color=style["color"], alpha=0.3, linewidth=0.7)
    axis.plot(TRIES, table.mean(0), **style)


def _rewards(axis, curves: Sequence[Sequence[float]], style: dict, window: int = 10) -> None:
    table, width = np.array(curves), min(window, len(curves[0]))
    smooth = np.array([np.convolve(line, np.ones(width) / width, "valid") for line in table])
    for line in smooth:
        axis.plot(line, color=style["color"], alpha=0.3, linewidth=0.7)
    axis.plot(smooth.mean(0), **style)

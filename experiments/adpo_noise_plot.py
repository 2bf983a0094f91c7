"""plot.png of experiments/adpo_noise.py, and the names of what stands in its tables."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from experiments import claims
from experiments.adpo_noise_bandit import CORRUPTIONS, SEVERITIES
from experiments.adpo_noise_policy import METHODS
from rlx.report.intervals import paired_interval
from rlx.report.plots import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
DRAWN = (
    ("dpo_noanchor", "all"),
    ("dpo_noanchor", "one"),
    ("dpo", "one"),
    ("soft", "all"),
    *((method, "") for method in METHODS[3:]),
)
"""The learners in the plot."""


def setting_name(candidates: int, temperature: float, pairs: str = "") -> str:
    """What a setting or a view is called.

    >>> setting_name(8, 0.2, "one")
    'K = 8, temperature 0.2, one pair'
    """
    kind = {"": "", "all": ", all pairs", "one": ", one pair"}[pairs]
    return f"K = {candidates}, temperature {temperature:g}{kind}"


def learner_name(method: str, pairs: str) -> str:
    """What a method is called with the pairs that it sees: all, unless told otherwise."""
    return f"{method}, one pair" if pairs == "one" else method


def rows_of(rows: Sequence[Row], **cell: Any) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in cell.items())]


def draw(config: ConfigDict, rows: Sequence[Row], path: Path) -> None:
    """What each learner gains over anchored dpo on all pairs, paired by seed: over severity, and over hidden sizes.

    A row of panels per setting, a column per corruption; WinMass of dpo itself stands at the ticks.
    """
    from matplotlib.figure import Figure

    count = len(config.settings)
    figure = Figure(figsize=(14.0, 7.2 * count + 1.2), layout="constrained")
    axes = figure.subplots(2 * count, len(CORRUPTIONS), sharey="row", squeeze=False)
    for i, (candidates, temperature) in enumerate(config.settings):
        own = rows_of(rows, candidates=candidates, temperature=temperature)
        for j, corruption in enumerate(CORRUPTIONS):
            here = rows_of(own, corruption=corruption)
            _panel(axes[2 * i, j], rows_of(here, hidden=config.hidden), "severity", SEVERITIES)
            _panel(axes[2 * i + 1, j], rows_of(here, severity="medium"), "hidden", config.capacity.hidden)
            axes[2 * i, j].set_title(f"{corruption}, hidden {config.hidden}")
            axes[2 * i + 1, j].set_title(f"{corruption}, medium")
        for axis in axes[2 * i : 2 * i + 2, 0]:
            axis.set_ylabel(f"{setting_name(candidates, temperature)}\nWinMass less that of dpo")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    legend.set_title("WinMass less that of anchored dpo on all pairs (its own in grey), paired by seed, 95 %")
    legend.get_title().set(fontsize="large", fontweight="bold")
    temporary = path.with_name(".plot.tmp.png")
    figure.savefig(temporary, dpi=110)
    os.replace(temporary, path)


def _panel(axis: "Axes", rows: Sequence[Row], key: str, values: Sequence[Any]) -> None:
    """Paired gains over dpo, a mark per learner beside each other at every value of the key."""
    dpo = {"method": "dpo", "pairs": "all"}
    axis.axhline(0, color="0.6", linewidth=1.0)
    for i, (method, pairs) in enumerate(DRAWN):
        found = []
        for value in values:
            ours, theirs = ({**learner, key: value} for learner in ({"method": method, "pairs": pairs}, dpo))
            found.append(paired_interval(*claims.paired(rows, "win_mass", ours, theirs)))
        places = np.arange(len(values)) + 0.11 * (i - (len(DRAWN) - 1) / 2)
        colour, one = COLOURS[METHODS.index(method)], pairs == "one"
        axis.errorbar(
            places,
            [interval.mean for interval in found],
            yerr=[interval.half_width for interval in found],
            marker=MARKERS[METHODS.index(method)],
            color=colour,
            markerfacecolor="white" if one else colour,
            markersize=6,
            linestyle="none",
            capsize=2,
            label=learner_name(method, pairs),
        )
    level = [np.mean([row["win_mass"] for row in rows_of(rows, **dpo, **{key: value})]) for value in values]
    axis.set_xticks(range(len(values)), [str(value) for value in values])
    axis.set_xlabel(key)
    for place, value in enumerate(level):
        axis.annotate(f"{value:.2f}", (place, 0.01), xycoords=("data", "axes fraction"), ha="center", color="0.45")
        if place:
            axis.axvline(place - 0.5, color="0.9", linewidth=0.8)
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)

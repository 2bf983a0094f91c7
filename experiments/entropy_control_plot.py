"""The picture of the comparison: every run faintly, the mean of each method, and what a method changes against GRPO."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import claims
from experiments.entropy_control_claims import GRPO
from experiments.parts import Row
from rlx.report import plots
from rlx.report.intervals import paired_interval

OVER_STEPS = ("entropy", "reward")


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Entropy and reward over the steps, reward over entropy, and paired differences from GRPO with 95 % intervals."""
    figure, axes = plots.blank(4, title, height=3.8)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for i, method in enumerate(methods):
        own, colour = [row["curve"] for row in rows if row["method"] == method], plots.COLOURS[i % 7]
        for axis, name in zip(axes, OVER_STEPS, strict=False):
            for curve in own:
                axis.plot(curve["step"], curve[name], color=colour, alpha=0.25, linewidth=0.7)
            axis.plot(own[0]["step"], np.mean([curve[name] for curve in own], 0), color=colour, label=method)
        for curve in own:
            axes[2].plot(curve["entropy"], curve["reward"], color=colour, alpha=0.7, linewidth=1)
        if method != GRPO and GRPO in methods:
            _against_grpo(axes[3], rows, method, {"color": colour, "marker": plots.MARKERS[i % 7], "label": method})
    for axis, name in zip(axes, OVER_STEPS, strict=False):
        axis.set(xlabel="step", ylabel=name, title=f"{name}: every run, and the mean")
    axes[0].legend(frameon=False, fontsize="small")
    axes[2].set(xlabel="entropy (nats)", ylabel="reward", title="reward over entropy, every run")
    axes[2].invert_xaxis()  # training goes from left to right
    axes[3].set(xlabel="final entropy less GRPO's", ylabel="final reward less GRPO's", title="at equal steps, paired")
    for line in (axes[3].axhline, axes[3].axvline):
        line(0, color="0.6", linewidth=0.8, linestyle=":")
    temporary = path.with_name(f".plot.{os.getpid()}.png")
    plots.save(figure, temporary)
    os.replace(temporary, path)


def _against_grpo(axis, rows: Sequence[Row], method: str, style: dict) -> None:
    ends = {
        name: paired_interval(*claims.paired(rows, name, {"method": method}, {"method": GRPO})) for name in OVER_STEPS
    }
    errors = [0.0 if np.isnan(end.half_width) else end.half_width for end in ends.values()]
    axis.errorbar(ends["entropy"].mean, ends["reward"].mean, xerr=errors[0], yerr=errors[1], capsize=3, **style)

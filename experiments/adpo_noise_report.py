"""table.md, table.csv and plot.png of experiments/adpo_noise.py, from its rows alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from experiments import adpo_noise_claims as statements
from experiments.adpo_noise_bandit import CORRUPTIONS, SEVERITIES
from experiments.adpo_noise_policy import LEARNERS, LISTWISE, METHODS, PREFERENCE
from rlx.report import plots, tables
from rlx.report.intervals import mean_interval
from rlx.report.rows import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = ("win_mass", "accuracy", "calibration_error", "reference_win_mass")
BY = ("candidates", "temperature", "hidden", "corruption", "severity", "method", "pairs")
GAINS = (
    ("dpo", "dpo_noanchor"),
    *((ours, theirs) for theirs in ("dpo_noanchor", "dpo") for ours in LISTWISE),
    ("trpo", "dpo"),
    ("ppo", "dpo"),
)
PROVENANCE = """\
The paper's: WinMass (probability of the truly best candidate), MLP policies of hidden size 64, 128, 256, AdamW at 5e-4,
a reference trained for 30 steps on clean data, four corruptions at three levels, 10 seeds, the ADPO losses.

Ours, since the paper's are not known to us: the bandit, K, temperatures, severities, steps, batch, tau; two hidden
layers with ReLU; weight decay; a reference that learns the truly best candidate of other contexts, and from which all
training starts; rewards standardised by median and MAD; the KDE bandwidth (the official code's). trpo is the expected
reward less temperature x KL to the reference; ppo is clipped at 0.2 against the policy at the start of each pass.
Nothing was tuned, for no method.

Two things that the paper leaves open are shown both ways: whether "standard DPO" has a reference (`dpo_noanchor` has
none, `dpo` has), and what pairwise losses see of a list of K rewards: all its pairs, as many rewards as the listwise
losses, or one pair, drawn anew each time. v1..v6 are versions of the paper; "late draft" is its author's later LaTeX
(github wk222/verlm, b79d8f45). Intervals: 95 %, t over seeds; those of claims are paired by seed.
"""
Row = dict[str, Any]


def write(config: ConfigDict, rows: Sequence[Row], workdir: Path) -> str:
    """Writes the three files, and returns the text of table.md; a smoke run has no claims."""
    text = ["# ADPO (arXiv:2510.18913): WinMass under corrupted rewards\n", PROVENANCE, _setting(config)]
    main = _of(rows, hidden=config.hidden)
    if config.size != "smoke":
        text += ["## Claims\n", tables.markdown(_claims(config, rows))]
        text += ["## What depends on K, the temperature and the pairs\n", tables.markdown(_dependence(config, main))]
    for candidates, temperature in config.settings:
        own = {"candidates": candidates, "temperature": temperature}
        text += [f"## {_name(candidates, temperature)}: WinMass\n"]
        text += [tables.markdown(_wide(_of(main, **own), ["corruption", "severity"]))]
        larger = [row for row in _of(rows, **own) if row["severity"] in config.capacity.severities]
        text += [tables.markdown(_wide(larger, ["corruption", "severity", "hidden"]))]
    for view in statements.views(config):
        text += [f"## {_name(*view)}: gains of the mean in %\n", tables.markdown(_gains(statements.seen(main, view)))]
    write_atomically(workdir / "table.md", "\n".join(text))
    write_atomically(workdir / "table.csv", tables.csv_text(tables.summarise(rows, BY, METRICS)))
    plot(config, rows, workdir / "plot.png")
    return "\n".join(text)


def _setting(config: ConfigDict) -> str:
    b, t, o = config.bandit, config.training, config.optimizer
    return (
        f"Contexts of {b.dimension} dimensions, {b.contexts} for training and {b.held_out} held out; {t.steps} steps "
        f"of {t.batch_size} lists; AdamW at {o.learning_rate:g}, weight decay {o.weight_decay:g}; tau "
        f"{config.losses.tau:g}; hidden {config.hidden} unless stated; seeds {config.seeds[0]}-{config.seeds[-1]}.\n"
    )


def _name(candidates: int, temperature: float, pairs: str = "") -> str:
    kind = {"": "", "all": ", all pairs", "one": ", one pair"}[pairs]
    return f"K = {candidates}, temperature {temperature:g}{kind}"


def _learner(method: str, pairs: str) -> str:
    return f"{method}, one pair" if pairs == "one" else method


def _of(rows: Sequence[Row], **cell: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in cell.items())]


def _claims(config: ConfigDict, rows: Sequence[Row]) -> list[Row]:
    """A line per claim, with the measure and the verdict of every view in a column of its own."""
    lines: list[Row] = []
    for view in statements.views(config):
        found = statements.tested(config, statements.seen(rows, view))
        lines = lines or [{"the paper": s.paper, "claim": s.claim.claim, "reproduced if": s.claim.rule} for s in found]
        for line, (_, claim) in zip(lines, found, strict=True):
            line[_name(*view)] = f"{tables.interval_text(claim.measured)}: {claim.verdict}"
    return lines


def _dependence(config: ConfigDict, rows: Sequence[Row]) -> list[Row]:
    """For each view: in how many of the 12 scenarios anchoring helps, which loss is best, and by how much a list."""
    lines = []
    for view in statements.views(config):
        own = statements.seen(rows, view)
        first = [statements.best(own, scenario, PREFERENCE) for scenario in statements.SCENARIOS]
        gains = np.array([[float(line[f"{name} over dpo"]) for name in LISTWISE] for line in _gains(own)]).max(-1)
        lines.append(
            {
                "setting": _name(*view),
                "dpo > dpo_noanchor": sum(statements.wins(own, "dpo", "dpo_noanchor", statements.SCENARIOS)),
                **{f"{method} best": first.count(method) for method in PREFERENCE},
                "better list over dpo, %": f"{gains.min():+.1f} to {gains.max():+.1f}, median {np.median(gains):+.1f}",
            }
        )
    return lines


def _wide(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """A line per scenario, the WinMass of a learner in each column."""
    lines: dict[tuple[Any, ...], Row] = {}
    for cell in tables.summarise(rows, [*keys, "method", "pairs"], METRICS):
        key = tuple(cell[name] for name in keys)
        line = lines.setdefault(key, {**dict(zip(keys, key, strict=True)), "reference": cell["reference_win_mass"]})
        line[_learner(cell["method"], cell["pairs"])] = cell["win_mass"]
    return sorted(lines.values(), key=lambda line: statements.SCENARIOS.index((line["corruption"], line["severity"])))


def _gains(rows: Sequence[Row]) -> list[Row]:
    """A line per scenario of a view: gains between means in per cent, and the best losses."""
    lines = []
    for corruption, severity in statements.SCENARIOS:
        here = _of(rows, corruption=corruption, severity=severity)
        means = {method: np.mean([row["win_mass"] for row in _of(here, method=method)]) for method in METHODS}
        line = {"corruption": corruption, "severity": severity}
        line |= {f"{ours} over {theirs}": f"{100 * (means[ours] / means[theirs] - 1):+.1f}" for ours, theirs in GAINS}
        for name, methods in (("best preference loss", PREFERENCE), ("best of all", METHODS)):
            line[name] = statements.best(rows, (corruption, severity), methods)
        lines.append(line)
    return lines


def plot(config: ConfigDict, rows: Sequence[Row], path: Path) -> None:
    """WinMass over severity and, below, over the hidden size: a row of panels per setting, a column per corruption."""
    from matplotlib.figure import Figure

    count = len(config.settings)
    figure = Figure(figsize=(13.0, 6.0 * count + 0.9), layout="constrained")
    axes = figure.subplots(2 * count, len(CORRUPTIONS), sharey="row", squeeze=False)
    for i, (candidates, temperature) in enumerate(config.settings):
        own = _of(rows, candidates=candidates, temperature=temperature)
        for j, corruption in enumerate(CORRUPTIONS):
            here = _of(own, corruption=corruption)
            _panel(axes[i, j], _of(here, hidden=config.hidden), "severity", SEVERITIES)
            _panel(axes[count + i, j], _of(here, severity="medium"), "hidden", config.capacity.hidden)
            axes[i, j].set_title(corruption)
            axes[count + i, j].set_title(f"{corruption}, medium")
        for row in (i, count + i):
            axes[row, 0].set_ylabel(f"{_name(candidates, temperature)}\nWinMass")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels) // 2, frameon=False)
    temporary = path.with_name(".plot.tmp.png")
    figure.savefig(temporary, dpi=110)
    os.replace(temporary, path)


def _panel(axis: "Axes", rows: Sequence[Row], key: str, values: Sequence[Any]) -> None:
    for i, (method, pairs) in enumerate(LEARNERS):
        own = _of(rows, method=method, pairs=pairs)
        found = [mean_interval([row["win_mass"] for row in _of(own, **{key: value})]) for value in values]
        places = np.arange(len(values)) + 0.04 * (i - len(LEARNERS) / 2)
        colour = METHODS.index(method)
        style = {"color": plots.COLOURS[colour], "marker": plots.MARKERS[colour], "markersize": 5, "linewidth": 1.3}
        axis.errorbar(
            places,
            [x.mean for x in found],
            yerr=[x.half_width for x in found],
            linestyle="--" if pairs == "one" else "-",
            capsize=2,
            label=_learner(method, pairs),
            **style,
        )
    axis.set_xticks(range(len(values)), [str(value) for value in values])
    axis.set_xlabel(key)
    axis.spines[["top", "right"]].set_visible(False)

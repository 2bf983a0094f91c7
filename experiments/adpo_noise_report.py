"""table.md, table.csv and plot.png of experiments/adpo_noise.py, from its rows alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import adpo_noise_claims as statements
from experiments import adpo_noise_plot as plots
from experiments.adpo_noise_policy import LISTWISE, METHODS, PREFERENCE
from rlx.report import tables
from rlx.report.rows import write_atomically

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
losses, or one pair, drawn anew each time (added after a look at all pairs on the seeds 1000-1009). v1..v6 are versions
of the paper; "late draft" is its author's later LaTeX (github wk222/verlm, b79d8f45). Intervals: 95 %, t over seeds;
those of claims are paired by seed. a > b holds in a cell if that interval lies above 0; the best loss is that with the
highest mean.
"""
Row = dict[str, Any]


def write(config: ConfigDict, rows: Sequence[Row], workdir: Path) -> str:
    """Writes the three files, and returns the text of table.md; a smoke run has no claims."""
    text = ["# ADPO (arXiv:2510.18913): WinMass under corrupted rewards\n", PROVENANCE, _setting(config)]
    main = plots.rows_of(rows, hidden=config.hidden)
    if config.size != "smoke":
        text += ["## Claims\n", tables.markdown(_claims(config, rows))]
        text += ["## What depends on K, the temperature and the pairs\n", tables.markdown(_dependence(config, main))]
    for candidates, temperature in config.settings:
        own = {"candidates": candidates, "temperature": temperature}
        text += [f"## {plots.setting_name(candidates, temperature)}: WinMass\n"]
        text += [tables.markdown(_wide(plots.rows_of(main, **own), ["corruption", "severity"]))]
        larger = [row for row in plots.rows_of(rows, **own) if row["severity"] in config.capacity.severities]
        text += [tables.markdown(_wide(larger, ["corruption", "severity", "hidden"]))]
    for view in statements.views(config.settings):
        text += [
            f"## {plots.setting_name(*view)}: gains of the mean in %\n",
            tables.markdown(_gains(statements.seen(main, view))),
        ]
    write_atomically(workdir / "table.md", "\n".join(text))
    write_atomically(workdir / "table.csv", tables.csv_text(tables.summarise(rows, BY, METRICS)))
    plots.draw(config, rows, workdir / "plot.png")
    return "\n".join(text)


def _setting(config: ConfigDict) -> str:
    b, t, o = config.bandit, config.training, config.optimizer
    return (
        f"Contexts of {b.dimension} dimensions, {b.contexts} for training and {b.held_out} held out; {t.steps} steps "
        f"of {t.batch_size} lists; AdamW at {o.learning_rate:g}, weight decay {o.weight_decay:g}; tau "
        f"{config.losses.tau:g}; hidden {config.hidden} unless stated; seeds {config.seeds[0]}-{config.seeds[-1]}.\n"
    )


def _claims(config: ConfigDict, rows: Sequence[Row]) -> list[Row]:
    """A line per claim, with the measure and the verdict of every view in a column of its own."""
    lines: list[Row] = []
    for view in statements.views(config.settings):
        found = statements.tested(config, statements.seen(rows, view))
        lines = lines or [{"the paper": s.paper, "claim": s.claim.claim, "reproduced if": s.claim.rule} for s in found]
        for line, (_, claim) in zip(lines, found, strict=True):
            line[plots.setting_name(*view)] = f"{tables.interval_text(claim.measured)}: {claim.verdict}"
    return lines


def _dependence(config: ConfigDict, rows: Sequence[Row]) -> list[Row]:
    """For each view: in how many of the 12 scenarios anchoring helps, which loss is best, and by how much a list."""
    lines = []
    for view in statements.views([*config.settings, *config.crossed]):
        own = statements.seen(rows, view)
        first = [statements.best(own, scenario, PREFERENCE) for scenario in statements.SCENARIOS]
        gains = np.array([[float(line[f"{name} over dpo"]) for name in LISTWISE] for line in _gains(own)]).max(-1)
        lines.append(
            {
                "setting": plots.setting_name(*view),
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
        line[plots.learner_name(cell["method"], cell["pairs"])] = cell["win_mass"]
    return sorted(lines.values(), key=lambda line: statements.SCENARIOS.index((line["corruption"], line["severity"])))


def _gains(rows: Sequence[Row]) -> list[Row]:
    """A line per scenario of a view: gains between means in per cent, and the best losses."""
    lines = []
    for corruption, severity in statements.SCENARIOS:
        here = plots.rows_of(rows, corruption=corruption, severity=severity)
        means = {method: np.mean([row["win_mass"] for row in plots.rows_of(here, method=method)]) for method in METHODS}
        line = {"corruption": corruption, "severity": severity}
        line |= {f"{ours} over {theirs}": f"{100 * (means[ours] / means[theirs] - 1):+.1f}" for ours, theirs in GAINS}
        for name, methods in (("best preference loss", PREFERENCE), ("best of all", METHODS)):
            line[name] = statements.best(rows, (corruption, severity), methods)
        lines.append(line)
    return lines

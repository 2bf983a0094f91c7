r"""Does self-play find the equilibrium? INPO, MNPO, SPPO, EGPO, Nash-MD and online IPO on random preference games.

Simulations of arXiv:2503.08942 (EGPO) with its sizes; its games are not public, so they are drawn anew. The tables of
INPO, SPO, SPPO and MNPO need language models: here their losses are held to what theory says of their minimum. Every
method starts at the reference policy and takes the same number of iterations of the same size.

  python -m experiments.nash_games [--full] [--smoke] [--workdir=DIR]

  (nothing)   20 games of 10 actions, beta 0.1 and 0.01, 2000 steps, exact and with 100 samples; two minutes
  --full      also the official settings, beta 0.1, 0.01, 0.001 with 1000, 5000, 100 000 steps; half an hour
  --smoke     few games, few steps, without a verdict

writes metrics.jsonl (a row per game, method and setting, with its curve), table.md, table.csv and plot.png; a second
call computes only the rows that are missing. Nothing was tuned: step sizes are the specification's and the paper's.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import frame, nash_games_claims, nash_games_methods, nash_games_play
from experiments.frame import Frame
from experiments.ledger import Ledger
from experiments.nash_games_play import COMPARED, EXACT, SAMPLED
from rlx.config import config_hash
from rlx.report import plots, tables
from rlx.report.intervals import mean_interval
from rlx.report.progress import Progress
from rlx.report.rows import write_atomically

USAGE = __doc__.split("\n\n", 2)[2]
KEYS = ("part", "config", "beta", "step_size", "steps", "method", "seed")
BY = KEYS[:1] + KEYS[2:-1]
METRICS = ("gap", "floor", "rate", "r2", "plain_last", "plain_average", "twin_error", "distance")
DRAWN = ("egpo", "online_ipo_omd", "nash_md", "online_ipo", "mnpo, last 2 as 2:1", "mnpo, last 3", "sppo")
NOTE = """\
Random games of {actions} actions: preferences uniform in [0, 1] above the diagonal, reference logits N(0, 1), start at
the reference. *gap*: what a best response gains in the regularised game (half the duality gap of arXiv:2503.08942),
*floor*: its mean over the last tenth of the steps, *rate* and *r2*: line through log gap until 1e-10, *plain*:
exploitability without regularisation, of the last and of the average policy, *twin_error*: largest difference of a
probability from the closed form (for MNPO with one opponent: from INPO) on the way, *distance*: the same from the
equilibrium at the end. Mean over games ± half of the 95 % interval. Gaps below 1e-16 count as 1e-16.

Chosen here, not the papers': the games; that MNPO's pairs are drawn from the mixture of its opponents; that sampled
pairs of actions are uniform. In this library INPO is MNPO with one opponent and share tau/eta of the reference, so
that their agreement holds by construction; the closed form checks both. Where the gap of two methods ends at
rounding, at beta 0.1, their order is not asked for. A constant step keeps noise in a policy that learns from samples:
its gap has a floor that the exact one lacks, and the factor 3 between them is asked for as it was set beforehand.
The claims on ratios of gaps, and that on the last policy of SPPO, were added after a first run: the mean of gaps that
span ten decades is that of a few games. Those on the order of EGPO, mirror descent and SPPO at beta 0.1 were dropped
then: the first two differed by 0 ± 0, both being rounding, and mirror descent was ahead of SPPO by 0.343 ± 0.087.
"""
Row = dict[str, Any]


def get_config(size: str = "default") -> ConfigDict:
    """The config at the size ``smoke``, ``default`` or ``full``; a setting is (beta, step size, steps).

    The official learning rates 0.1, 0.02 and 2e-4 are steps of size 4 * rate / (beta * actions).
    """
    exact = [(0.1, 0.5, 2000), (0.01, 0.5, 2000)]
    sampled = [(0.1, 0.05, 2000)]
    methods, drawn = tuple(nash_games_methods.EXACT), tuple(nash_games_methods.SAMPLED)
    seeds, points = tuple(range(20)), 41
    if size == "full":
        exact += [(0.1, 0.4, 1000), (0.01, 0.8, 5000), (0.001, 0.08, 100_000)]
        sampled += [(0.01, 0.008, 100_000)]
    if size == "smoke":
        exact, sampled, seeds, points = [(0.1, 0.5, 60)], [(0.1, 0.05, 60)], (1000, 1001), 5
        methods, drawn = ("egpo", "mnpo, last 2 as 2:1", "sppo"), ("egpo",)
    settings = {"exact": tuple(exact), "sampled": tuple(sampled)}
    game = {"actions": 10, "samples": 100, "points": points}
    names = {"exact": methods, "sampled": drawn}
    return ConfigDict({"size": size, "seeds": seeds, "game": game, "settings": settings, "methods": names}).lock()


def named(settings: Sequence[Sequence[float]]) -> list[Row]:
    """Settings by the names of their fields."""
    return [dict(zip(("beta", "step_size", "steps"), setting, strict=True)) for setting in settings]


def cells(config: ConfigDict) -> list[Row]:
    """Every method at every setting; those that are sampled once more without samples."""
    exact, sampled = named(config.settings.exact), named(config.settings.sampled)
    common, names = {"config": config_hash(config.game)}, config.methods
    parts = [(EXACT, exact, names.exact), (COMPARED, sampled, names.sampled), (SAMPLED, sampled, names.sampled)]
    return [
        {"part": part, **common, **setting, "method": method, "seed": seed}
        for part, settings, methods in parts
        for setting in settings
        for method in methods
        for seed in config.seeds
    ]


def compute(config: ConfigDict, ledger: Ledger) -> list[Row]:
    """Computes the rows that are missing, all games of a method and setting at once, and returns all rows."""
    wanted = cells(config)
    missing = ledger.missing(wanted)
    programs: dict[tuple, list[Row]] = {}
    for cell in missing:
        programs.setdefault(tuple(cell[key] for key in BY), []).append(cell)
    progress = Progress(len(wanted), done=len(wanted) - len(missing), label="self-play", unit="game", interval=5)
    with progress:
        for together in programs.values():
            for cell, measured in zip(together, nash_games_play.rows(together, config.game), strict=True):
                ledger.add({**cell, **measured})
            progress.update(progress.done + len(together), together[0]["method"])
    return ledger.select(wanted)


def report(config: ConfigDict, rows: Sequence[Row], workdir: Path) -> str:
    """Writes table.md, table.csv and plot.png from the rows alone; returns the text of table.md."""
    summary = tables.summarise(rows, BY, METRICS)
    text = ["# Nash learning on random games\n", NOTE.format(**config.game)]
    tabled: dict[tuple, list[Row]] = {}
    for line in summary:
        tabled.setdefault(tuple(line[key] for key in BY[:-1]), []).append(line)
    for (part, beta, step_size, steps), lines in tabled.items():
        text += [f"## {part.capitalize()}: beta {beta:g}, step {step_size:g}, {steps} steps\n"]
        text += [tables.markdown(lines, ["method", *METRICS, "n"])]
    if config.size != "smoke":
        exact, sampled = named(config.settings.exact), named(config.settings.sampled)
        tested = nash_games_claims.tested(exact, sampled, rows)
        text += ["## Claims\n", tables.markdown([{**claim.row(), "source": source} for claim, source in tested])]
    write_atomically(workdir / "table.md", "\n".join(text))
    write_atomically(workdir / "table.csv", tables.csv_text(summary))
    _plot(rows, workdir / "plot.png")
    return "\n".join(text)


def _plot(rows: Sequence[Row], path: Path) -> None:
    """A panel per setting: the gap over the steps, mean of its logarithm over the games with the 95 % interval."""
    panels: dict[str, None] = {}
    lines: list[Row] = []
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["method"] in DRAWN and row["part"] != COMPARED:
            groups.setdefault(tuple(row[key] for key in BY), []).append(row)
    for members in groups.values():
        lines += _curve(members, panels)
    temporary = path.with_name(".plot.tmp.png")
    title = "Exploitability of the last policy in the regularised game (log10)"
    plots.curves(lines, temporary, title=title, metrics=list(panels))
    os.replace(temporary, path)


def _curve(members: Sequence[Row], panels: dict[str, None]) -> list[Row]:
    """Rows of a line; ``panels`` collects the metrics in order."""
    import numpy as np

    first = members[0]
    panel = f"{first['part']}, beta {first['beta']:g}, step {first['step_size']:g}, {first['steps']} steps"
    panels[panel] = None
    logs = np.log10([row["curve"] for row in members])
    found = []
    for step, column in zip(first["curve_steps"], logs.T, strict=True):
        mean, low, high, _ = mean_interval(column)
        ends = {panel: mean, f"{panel}_low": low, f"{panel}_high": high}
        share = 100 * step / first["steps"]  # the settings differ in length, the axes of the panels do not
        found.append({"stage": "percent of all", "split": first["method"], "step": share, **ends})
    return found


FRAME = Frame(
    "nash_games",
    USAGE,
    KEYS,
    lambda size, _: get_config(size),
    lambda config, ledger, workdir: report(config, compute(config, ledger), workdir),
)

if __name__ == "__main__":
    frame.program(lambda: frame.run(FRAME))

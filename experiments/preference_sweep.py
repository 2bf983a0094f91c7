r"""Twelve preference losses under wrong labels: which one holds up when training labels are flipped?

A small language model is tuned on pairs of its own samples whose true reward is known (the task of part B of
experiments/rdpo_noise.py), with 0, 20 and 40 % of the labels flipped. No paper has this table; it is a comparison at
equal data, initialisation, batch order, optimiser and steps: only the loss differs.

  python -m experiments.preference_sweep [--full] [--smoke] [--select] [--workdir=DIR]

  (nothing)   12 methods x 3 flip rates x 5 seeds; about a quarter of an hour on 2 cores
  --full      10 seeds, twice the steps, 3000 pairs
  --smoke     seconds, 2 methods
  --select    how each method's one knob was chosen: three values each, seeds 1000 and 1001, no flips

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing. Each step is compiled once and serves all seeds. cdpo and rdpo are told the true rate; no other
method can use it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import flipped_language, frame, rdpo_noise_language
from experiments.flipped_language import METRICS
from experiments.frame import Frame
from experiments.ledger import Ledger
from rlx.config import config_hash, to_json
from rlx.report import plots, tables
from rlx.report.intervals import mean_interval
from rlx.report.rows import write_atomically

USAGE = __doc__.split("\n\n", 2)[2]
KEYS = ("config", "method", "knob", "value", "flip_rate", "seed")
BY = ("flip_rate", "method", "value")
# the knob of each method and its candidates; the first is the paper's or the library's default where it fits the task
KNOBS: dict[str, tuple[str, tuple[float, ...]]] = {
    "dpo": ("beta", (0.1, 0.03, 0.3)),
    "cdpo": ("beta", (0.1, 0.03, 0.3)),
    "rdpo": ("beta", (0.1, 0.03, 0.3)),
    "dpo_hinge": ("beta", (0.1, 0.03, 0.3)),
    "ipo": ("tau", (0.1, 0.03, 0.3)),
    "exo_pair": ("beta", (0.1, 0.03, 0.3)),
    "nca_pair": ("beta", (0.1, 0.03, 0.3)),
    "apo_zero": ("beta", (0.1, 0.03, 0.3)),
    "sppo_hard": ("beta", (0.1, 0.03, 0.3)),
    "simpo": ("beta", (2.0, 1.0, 4.0)),
    "cpo": ("beta", (0.1, 0.03, 0.3)),
    "power": ("beta", (2.0, 1.0, 4.0)),
}
CHOSEN = {
    "dpo": 0.1,
    "cdpo": 0.1,
    "rdpo": 0.1,
    "dpo_hinge": 0.03,
    "ipo": 0.03,
    "exo_pair": 0.1,
    "nca_pair": 0.03,
    "apo_zero": 0.3,
    "sppo_hard": 0.03,
    "simpo": 4.0,
    "cpo": 0.3,
    "power": 2.0,
}
"""The candidate with the highest mean reward in ``--select``."""
TOLD = ("cdpo", "rdpo")
Row = dict[str, Any]


def get_config(size: str = "default") -> ConfigDict:
    """The task's config with the methods; ``select`` is the search of the knobs on seeds of its own."""
    task = rdpo_noise_language.get_config({"default": "quickstart", "select": "quickstart"}.get(size, size)).to_dict()
    methods = {name: CHOSEN[name] for name in (list(KNOBS)[:2] if size == "smoke" else KNOBS)}
    config = ConfigDict({**task, "size": size, "methods": methods})
    if size == "select":
        config.update({"seeds": (1000, 1001), "flip_rates": (0.0,)})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every method at every flip rate with every seed; in the search every candidate."""
    own = {
        key: value for key, value in config.to_dict().items() if key not in ("seeds", "flip_rates", "methods", "size")
    }
    settings = config_hash(own)
    return [
        {"config": settings, "method": name, "knob": KNOBS[name][0], "value": value, "flip_rate": rate, "seed": seed}
        for name in config.methods
        for value in (KNOBS[name][1] if config.size == "select" else (config.methods[name],))
        for rate in config.flip_rates
        for seed in config.seeds
    ]


def method_of(cell: Row) -> dict[str, Any]:
    """What ``rlx.build`` takes."""
    told = {"epsilon": cell["flip_rate"]} if cell["method"] in TOLD else {}
    return {"name": cell["method"], cell["knob"]: cell["value"], **told}


def report(config: ConfigDict, rows: Sequence[Row], workdir: Path) -> str:
    """Writes table.md, table.csv and plot.png from the rows alone, and returns the text of table.md."""
    summary = tables.summarise(rows, BY, METRICS)
    summary.sort(key=lambda line: (line["flip_rate"], -line["reward"].mean))
    text = [f"# {len(config.methods)} preference losses under flipped labels\n", setting(config, rows)]
    text.append(tables.markdown(summary))
    if config.size in ("default", "full"):
        text += [
            "\n## What flips cost: reward at a flip rate minus reward without, paired by seed\n",
            costs(config, rows),
        ]
    write_atomically(workdir / "table.md", "\n".join(text))
    write_atomically(workdir / "table.csv", tables.csv_text(summary))
    temporary = workdir / ".plot.tmp.png"
    by = ["value", "method"] if config.size == "select" else ["flip_rate", "method"]
    lines = tables.summarise(rows, by, METRICS)
    plots.cells(lines, temporary, by=by, metrics=["reward", "kl"], title="Training labels flipped")
    os.replace(temporary, workdir / "plot.png")
    return "\n".join(text)


def setting(config: ConfigDict, rows: Sequence[Row]) -> str:
    """What stands above the table."""
    chosen = ", ".join(f"{name} {KNOBS[name][0]}={value:g}" for name, value in config.methods.items())
    return (
        f"{rdpo_noise_language.setting(config, rows).replace(f'beta {config.beta:g}, ', '')}\n"
        f"Knobs, chosen without flips on seeds 1000 and 1001 from three values each (`--select`): {chosen}.\n"
    )


def costs(config: ConfigDict, rows: Sequence[Row]) -> str:
    """The paired difference of the reward to that without flips, by method."""
    reward = {(row["method"], row["flip_rate"], row["seed"]): row["reward"] for row in rows}
    first, *rest = config.flip_rates
    found = [
        {"method": name}
        | {
            f"at {rate:g}": mean_interval([reward[name, rate, s] - reward[name, first, s] for s in config.seeds])
            for rate in rest
        }
        for name in config.methods
    ]
    return tables.markdown(sorted(found, key=lambda line: -line[f"at {rest[-1]:g}"].mean))


def work(config: ConfigDict, ledger: Ledger, workdir: Path) -> str:
    """Fits the models that are missing and writes the files."""
    wanted = cells(config)
    if ledger.missing(wanted):
        task = flipped_language.Task(config)
        ledger.fill(
            wanted,
            lambda cell: to_json(method_of(cell)),
            lambda cell: task.row(method_of(cell), cell["flip_rate"], cell["seed"]),
            label=f"{len(config.methods)} methods",
            interval=20,
        )
    return report(config, ledger.select(wanted), workdir)


FRAME = Frame(
    "preference_sweep", USAGE, KEYS, lambda size, _: get_config(size), work, sizes=("full", "smoke", "select")
)

if __name__ == "__main__":
    frame.program(lambda: frame.run(FRAME))

r"""Which preference loss survives wrong labels? rDPO (arXiv:2403.00409) against DPO and cDPO at several flip rates.

Part A is exact: log-linear policies, known reward, closed-form expectations. Part B trains a small language model on
pairs of its own samples whose true reward is known. The paper's tables (IMDb sentiment, Anthropic HH) need large
language models; its claims are tested here on small problems. Its numbers were not read.

  python -m experiments.rdpo_noise [--full] [--smoke] [--part=A] [--workdir=DIR]

  (nothing)   quickstart: A complete, B small; two to three minutes on 2 cores
  --full      B with 10 seeds and 3000 pairs; under ten minutes
  --smoke     both parts in seconds, without a verdict
  --part=A    one part only

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing. Hyperparameters were chosen on seeds from 1000 on, at flip rate 0, where the losses are the same.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import frame, rdpo_noise_exact, rdpo_noise_language
from experiments.frame import Frame
from experiments.ledger import Ledger
from rlx import errors
from rlx.report import plots, tables
from rlx.report.rows import write_atomically

USAGE = __doc__.split("\n\n", 2)[2]
PARTS = {part.PART: part for part in (rdpo_noise_exact, rdpo_noise_language)}
KEYS = ("part", "config", "table", "method", "flip_rate", "epsilon", "pairs", "seed")
BY = KEYS[2:-1]
ORIGIN = (
    "Claims of arXiv:2403.00409 on small problems of our own choice: sizes, label scale and optimiser are not the "
    "paper's, and its numbers were not read."
)
Row = dict[str, Any]


def run_part(name: str, config: Mapping[str, Any], ledger: Ledger) -> list[Row]:
    """Computes the rows of a part that are missing, and returns all rows of this config."""
    part = PARTS[name]
    cells = part.cells(config)
    if not ledger.missing(cells):
        return ledger.select(cells)
    runner = part.Runner(config)
    return ledger.fill(cells, runner.program, runner.row, label=part.TITLE)


def report(config: Mapping[str, Any], rows: Mapping[str, Sequence[Row]], workdir: Path) -> str:
    """Writes table.md, table.csv and plot.png from the rows alone, and returns the text of table.md.

    Args:
      config: by part, and its ``size``: the claims are not tested on a smoke run.
      rows: by part.
      workdir: where to write.
    """
    summaries = {name: tables.summarise(found, BY, PARTS[name].METRICS) for name, found in rows.items()}
    text = [f"# Noisy labels: rdpo, dpo and cdpo\n\n{ORIGIN}\n"]
    for name, summary in summaries.items():
        shown = [{**line, "paper": "not read"} for line in summary]
        text += [f"## {PARTS[name].TITLE}\n", PARTS[name].setting(config[name], rows[name]), tables.markdown(shown)]
        if config["size"] != "smoke":
            text.append(tables.markdown([claim.row() for claim in PARTS[name].tested(config[name], rows[name])]))
    write_atomically(workdir / "table.md", "\n".join(text))
    flat = [{"part": name, **line} for name, summary in summaries.items() for line in summary]
    write_atomically(workdir / "table.csv", tables.csv_text(flat))
    _plot(rows, workdir / "plot.png")
    return "\n".join(text)


def _plot(rows: Mapping[str, Sequence[Row]], path: Path) -> None:
    """A panel per part: reward over the flip rate."""
    lines, metrics = [], []
    for name, found in rows.items():
        label, own = PARTS[name].plotted(found)
        metrics.append(label)
        lines += [{**line, label: line["value"]} for line in tables.summarise(own, ["flip_rate", "method"], ["value"])]
    temporary = path.with_name(".plot.tmp.png")
    plots.cells(lines, temporary, by=["flip_rate", "method"], metrics=metrics, title="Training labels flipped")
    os.replace(temporary, path)


def get_config(size: str = "quickstart") -> dict[str, Any]:
    """The config of every part at the size ``smoke``, ``quickstart`` or ``full``."""
    return {"size": size, **{name: part.get_config(size).lock() for name, part in PARTS.items()}}


def chosen(size: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The configs of the parts that the options ask for."""
    part, config = options["part"], get_config(size)
    if part and part not in PARTS:
        raise errors.UserError(f"--part={part} does not exist: there are {', '.join(PARTS)}.")
    return {key: value for key, value in config.items() if key not in PARTS or not part or key == part}


def work(config: Mapping[str, Any], ledger: Ledger, workdir: Path) -> str:
    """Computes the rows that are missing and writes the files."""
    rows = {name: run_part(name, config[name], ledger) for name in PARTS if name in config}
    return report(config, rows, workdir)


FRAME = Frame("rdpo_noise", USAGE, KEYS, chosen, work, default="quickstart", folder="quickstart")

if __name__ == "__main__":
    frame.program(lambda: frame.run(FRAME))

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
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import rdpo_noise_exact, rdpo_noise_language
from experiments.ledger import Ledger
from rlx import errors
from rlx.config import parse_options, to_json
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


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options, _ = parse_options(sys.argv[1:] if argv is None else argv, USAGE)
    size = "full" if options["full"] else "smoke" if options["smoke"] else "quickstart"
    chosen = [options["part"]] if options["part"] else list(PARTS)
    if chosen[0] not in PARTS:
        raise errors.UserError(f"--part={chosen[0]} does not exist: there are {', '.join(PARTS)}.")
    workdir = Path(options["workdir"] or f"runs/{'quickstart' if size == 'quickstart' else f'rdpo_noise_{size}'}")
    start, config = time.monotonic(), get_config(size)
    ledger = Ledger(workdir / "metrics.jsonl", KEYS)
    plain = {key: value.to_dict() if key in PARTS else value for key, value in config.items()}
    write_atomically(workdir / "config.json", to_json(plain))
    rows = {name: run_part(name, config[name], ledger) for name in chosen}
    print(report(config, rows, workdir))
    names = "metrics.jsonl table.md table.csv plot.png"
    print(f"{workdir}: {names} ({size}, {time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    try:
        main()
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

"""An experiment in parts: each has its problem, tables, claims and panels; all share one folder and one frame."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import frame
from experiments.claims import Claim
from experiments.frame import Frame
from experiments.ledger import Ledger
from rlx import errors
from rlx.config import config_hash
from rlx.report import plots, tables
from rlx.report.progress import Progress
from rlx.report.rows import write_atomically

Row = dict[str, Any]
Tested = tuple[Claim, str]
Panel = tuple[str, list[Row], tuple[str, ...], str]


class Table(NamedTuple):
    """A table of a part: what stands above it, the keys that tell its cells apart, and what was measured."""

    title: str
    by: tuple[str, ...]
    metrics: tuple[str, ...]


class Part(NamedTuple):
    """A part of an experiment.

    Attributes:
      config: size (``smoke``, ``default``, ``full``) -> its config; what is not in ``cell_keys`` goes into the hash
        that tells rows of other settings apart.
      cells: config -> cells, each with its ``table``, the keys of that table, and a ``seed``.
      rows: (cells that differ in the seed alone, config) -> what was measured in each.
      tested: (config, rows) -> claims, each with the statement of the paper or of theory that it holds up to.
      panels: rows -> (title, rows, keys that tell its cells apart, metric).
      tables: by name.
      note: what stands above the tables.
      cell_keys: fields of the config that only say which cells there are.
    """

    config: Callable[[str], ConfigDict]
    cells: Callable[[ConfigDict], list[Row]]
    rows: Callable[[Sequence[Row], ConfigDict], Sequence[Row]]
    tested: Callable[[ConfigDict, Sequence[Row]], list[Tested]]
    panels: Callable[[Sequence[Row]], list[Panel]]
    tables: Mapping[str, Table]
    note: str
    cell_keys: tuple[str, ...] = ("seeds",)


class Experiment(NamedTuple):
    """Parts by name, and what stands above all of them."""

    name: str
    title: str
    usage: str
    parts: Mapping[str, Part]

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields that tell rows apart."""
        own = [key for part in self.parts.values() for table in part.tables.values() for key in table.by]
        return ("part", "config", "table", *dict.fromkeys(own), "seed")


def cells(name: str, part: Part, config: ConfigDict) -> list[Row]:
    """The cells of a part, with its name and the hash of its settings."""
    settings = {key: value for key, value in config.to_dict().items() if key not in part.cell_keys}
    common = {"part": name, "config": config_hash(settings)}
    return [{**common, **cell} for cell in part.cells(config)]


def compute(name: str, part: Part, config: ConfigDict, ledger: Ledger) -> list[Row]:
    """Computes the rows that are missing, all seeds of a cell at once, and returns all rows of this config."""
    wanted = cells(name, part, config)
    missing = ledger.missing(wanted)
    together: dict[tuple, list[Mapping[str, Any]]] = {}
    for cell in missing:
        together.setdefault(tuple((k, v) for k, v in cell.items() if k != "seed"), []).append(cell)
    done = len(wanted) - len(missing)
    with Progress(len(wanted), done=done, label=name, unit="row", interval=5) as progress:
        for own in together.values():
            for cell, measured in zip(own, part.rows([dict(cell) for cell in own], config), strict=True):
                ledger.add({**cell, **measured})
            progress.update(progress.done + len(own), str(own[0]["table"]))
    return ledger.select(wanted)


def report(
    experiment: Experiment, size: str, configs: Mapping[str, Any], rows: Mapping[str, Sequence[Row]], workdir: Path
) -> str:
    """Writes table.md, table.csv and plot.png from the rows alone; returns the text of table.md."""
    text, flat = [f"# {experiment.title}\n"], []
    for name, found in rows.items():
        part = experiment.parts[name]
        text.append(f"{part.note}\n")
        for key, table in part.tables.items():
            own = [row for row in found if row["table"] == key]
            summary = tables.summarise(own, table.by, table.metrics)
            text += [f"## {table.title}\n", tables.markdown(summary)]
            flat += [{"part": name, "table": key, **line} for line in summary]
        if size != "smoke":
            tested = [{**claim.row(), "paper": source} for claim, source in part.tested(configs[name], found)]
            text += [f"## Claims: {name}\n", tables.markdown(tested)]
    write_atomically(workdir / "table.md", "\n".join(text))
    write_atomically(workdir / "table.csv", tables.csv_text(flat))
    _plot(experiment, rows, workdir / "plot.png")
    return "\n".join(text)


def _plot(experiment: Experiment, rows: Mapping[str, Sequence[Row]], path: Path) -> None:
    shown = []
    for name, found in rows.items():
        for title, own, by, metric in experiment.parts[name].panels(found):
            shown.append((title, tables.summarise(own, by, [metric]), by, metric))
    temporary = path.with_name(".plot.tmp.png")
    plots.panels(shown, temporary, title=experiment.title)
    os.replace(temporary, path)


def run(experiment: Experiment, argv: Sequence[str] | None = None) -> None:
    """Command line of an experiment: ``[--full] [--smoke] [--part=NAME] [--workdir=DIR]``."""

    def configs(size: str, options: Mapping[str, Any]) -> dict[str, Any]:
        chosen = [options["part"]] if options["part"] else list(experiment.parts)
        if chosen[0] not in experiment.parts:
            raise errors.UserError(f"--part={chosen[0]} does not exist: there are {', '.join(experiment.parts)}.")
        return {"size": size, **{name: experiment.parts[name].config(size) for name in chosen}}

    def work(config: Mapping[str, Any], ledger: Ledger, workdir: Path) -> str:
        own = {name: config[name] for name in experiment.parts if name in config}
        rows = {name: compute(name, experiment.parts[name], config[name], ledger) for name in own}
        return report(experiment, config["size"], own, rows, workdir)

    frame.run(Frame(experiment.name, experiment.usage, experiment.keys, configs, work), argv)


def command_line(experiment: Experiment) -> None:
    """:func:`run` as a program."""
    frame.program(lambda: run(experiment))

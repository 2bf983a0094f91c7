"""The rows of an experiment: one JSON line per seed and cell, written as it is done, never computed twice."""

import os
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rlx.report.progress import Progress
from rlx.report.rows import cut_partial_line, dump_row, read_rows

Row = dict[str, Any]


class Ledger:
    """``metrics.jsonl`` of an experiment, open for appending; safe to share between threads.

    A kill loses at most the row being written: a half-written last line is removed on opening.

    Args:
      path: the file; its folder is made.
      keys: the fields that tell rows apart (part, config hash, method, seed, ...). A row found in the file that has
        the same values in all of them counts as done.
    """

    def __init__(self, path: str | os.PathLike[str], keys: Sequence[str]):
        self.path, self.keys = Path(path), tuple(keys)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_partial_line(self.path)
        self.rows: list[Row] = read_rows(self.path) if self.path.exists() else []
        self._done = {self._key(row) for row in self.rows}
        self._lock = threading.Lock()

    def missing(self, cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of the cells that have no row yet, in their order."""
        return [cell for cell in cells if self._key(cell) not in self._done]

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends a row; it is in the file when this returns."""
        with self._lock:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(dump_row(row) + "\n")
            self.rows.append(dict(row))
            self._done.add(self._key(row))

    def fill(
        self,
        cells: Sequence[Mapping[str, Any]],
        program: Callable[[Mapping[str, Any]], Hashable],
        row: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        label: str,
        unit: str = "fit",
        interval: float = 5,
    ) -> list[Row]:
        """Computes the rows that are missing, two programs at a time, and returns those of all cells.

        Args:
          cells: what tells rows apart.
          program: what the compiled code of a cell depends on; its cells follow each other, so it compiles once.
          row: the measures of a cell.
          label: of the progress line.
          unit: what a row is called there.
          interval: seconds between its lines in a log.
        """
        missing, done = self.missing(cells), self.select(cells)
        progress = Progress(len(cells), done=len(done), label=label, unit=unit, interval=interval)
        progress.update(progress.done, "compiling" if missing else "")
        programs: dict[Hashable, list[Mapping[str, Any]]] = {}
        for cell in missing:
            programs.setdefault(program(cell), []).append(cell)

        def work(own: Sequence[Mapping[str, Any]]) -> None:
            for cell in own:
                self.add({**cell, **row(cell)})
                done.append(dict(cell))  # counted here: asking for what is missing after each of N rows would take N^2
                progress.update(len(done))

        with progress, ThreadPoolExecutor(2) as pool:
            for _ in pool.map(work, sorted(programs.values(), key=len, reverse=True)):
                pass
        return self.select(cells)

    def select(self, cells: Sequence[Mapping[str, Any]]) -> list[Row]:
        """The rows of these cells, in the order of the cells; rows of other sizes or settings stay out."""
        by_key = {self._key(row): row for row in self.rows}
        return [by_key[key] for cell in cells if (key := self._key(cell)) in by_key]

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(key) for key in self.keys)

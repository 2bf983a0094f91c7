"""The rows of an experiment: one JSON line per seed and cell, written as it is done, never computed twice."""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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

    def select(self, cells: Sequence[Mapping[str, Any]]) -> list[Row]:
        """The rows of these cells, in the order of the cells; rows of other sizes or settings stay out."""
        by_key = {self._key(row): row for row in self.rows}
        return [by_key[key] for cell in cells if (key := self._key(cell)) in by_key]

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(key) for key in self.keys)

"""Rows of metrics as JSON lines: read them, write them, drop those that a resumed run will write again.

A row is ``{"stage": ..., "step": ..., "split": ..., metric: value, ...}``. A metric ``x`` may be accompanied
by ``x_low`` and ``x_high``, the ends of its 95 % interval: tables then show them together.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlx import bounds
from rlx.errors import UserError, one_line

RESERVED = ("stage", "step", "split")
MAX_BYTES = 2**30  # of a file of rows
LARGEST_STEP = 2**53
LONGEST_NAME, MOST_CURVES = 200, 64  # of stages, splits and metrics: a picture has room for no more
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def truncate(path: str | os.PathLike[str], stage: str, step: int) -> int:
    """Drops the rows that a run resumed after `step` of `stage` will write again.

    Call it before the file is opened by a logger. Stages follow each other, so the rows before the first one
    of `stage` belong to finished stages and stay; of the rest, those of `stage` up to and including `step`
    stay. The file is replaced atomically.

    Args:
      path: the JSON-lines file; it need not exist.
      stage: the stage that is resumed.
      step: the last step whose rows stay (the step of the checkpoint; -1 when the stage starts anew).

    Returns:
      The number of rows dropped.
    """
    path = Path(path)
    rows = read_metrics(path) if path.exists() else []
    first = next((i for i, row in enumerate(rows) if row["stage"] == stage), len(rows))
    kept = rows[:first] + [row for row in rows[first:] if row["stage"] == stage and row["step"] <= step]
    if len(kept) < len(rows):
        write_atomically(path, "".join(dump_row(row) + "\n" for row in kept))
    return len(rows) - len(kept)


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, "NaN" and the infinities as floats; an incomplete last line is left out.

    Raises:
      UserError: a line before the last one is not a JSON object, or the file holds more than :data:`MAX_BYTES`.
    """
    return [row for _, row in _numbered(path)]


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``, each with stage, step and split.

    Raises:
      UserError: as :func:`read_rows`; or a row lacks one of them.
    """
    rows: list[dict[str, Any]] = []
    curves: set[tuple[str, str]] = set()
    for number, row in _numbered(path):
        problem = _problem(row)
        if problem:
            raise UserError(f"{path}:{number}: {problem}.")
        rows.append(row)
        curves.add((row["stage"], row["split"]))
        if len(curves) > MOST_CURVES:
            raise UserError(f"{path}:{number}: more than {MOST_CURVES} stages and splits.")
    return rows


def _numbered(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with the numbers of their lines."""
    lines = bounds.read_bytes(path, MAX_BYTES).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = bounds.loads(line)
        except bounds.Malformed as error:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number}: not a JSON object ({error}).") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: not a JSON object (but a {type(row).__name__}).")
        wrong = [key for key, value in row.items() if type(value) is int and not bounds.is_number(value)]
        if wrong:
            raise UserError(f"{path}:{number}: {one_line(repr(wrong[0]), 60)} is a number that no float can hold.")
        yield number, {key: _restore(value) for key, value in row.items()}


def _problem(row: Mapping[str, Any]) -> str:
    """What a row of metrics lacks."""
    for key in RESERVED:
        if key not in row:
            return f"a row of metrics without {key!r}"
        if key == "step" and not (type(row[key]) is int and abs(row[key]) <= LARGEST_STEP):
            return f"'step' must be a whole number, found {one_line(repr(row[key]), 60)}"
        if key != "step" and not (isinstance(row[key], str) and len(row[key]) <= LONGEST_NAME):
            return f"{key!r} must be a text of at most {LONGEST_NAME} letters, found {one_line(repr(row[key]), 60)}"
    for key, value in row.items():
        if len(key) > LONGEST_NAME:
            return f"the name of a metric has {len(key)} letters, {LONGEST_NAME} are the bound"
        if key not in RESERVED and not (value is None or isinstance(value, bool | int | float)):
            return f"the metric {one_line(repr(key), 60)} must be a number, found {one_line(repr(value), 60)}"
    return ""


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object of a whole JSON file, with what `dump_row` made of NaN and the infinities as floats again.

    Raises:
      UserError: the file holds none.
    """
    return _restore(bounds.read_object(path, MAX_BYTES))


def dump_row(row: Mapping[str, Any]) -> str:
    """A row as one line of valid JSON.

    >>> dump_row({"step": 1, "loss": float("nan")})
    '{"step": 1, "loss": "NaN"}'
    """
    return json.dumps({key: _plain(value) for key, value in row.items()}, allow_nan=False)


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Writes a whole file, or leaves the old one untouched and raises an OSError that names it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def _plain(value: Any) -> Any:
    """A value that JSON can hold: array scalars become numbers, not finite ones become strings."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _restore(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restore(item) for key, item in value.items()}
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def cut_partial_line(path: Path) -> None:
    """Removes a half-written last line, if there is one."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)

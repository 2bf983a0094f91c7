"""Rows of metrics as JSON lines: read them, write them, drop those that a resumed run will write again.

A row is ``{"stage": ..., "step": ..., "split": ..., metric: value, ...}``. A metric ``x`` may be accompanied
by ``x_low`` and ``x_high``, the ends of its 95 % interval: tables then show them together.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError

RESERVED = ("stage", "step", "split")
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
    rows = read_rows(path) if path.exists() else []
    first = next((i for i, row in enumerate(rows) if row["stage"] == stage), len(rows))
    kept = rows[:first] + [row for row in rows[first:] if row["stage"] == stage and row["step"] <= step]
    if len(kept) < len(rows):
        write_atomically(path, "".join(dump_row(row) + "\n" for row in kept))
    return len(rows) - len(kept)


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, "NaN" and the infinities as floats; an incomplete last line is left out.

    Raises:
      UserError: a line before the last one is not a JSON object.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number}: not a JSON object ({error.msg}).") from None
        if row is not None:
            rows.append({key: _restore(value) for key, value in row.items()})
    return rows


def read_json(path: str | os.PathLike[str]) -> Any:
    """A whole JSON file, with what `dump_row` made of NaN and the infinities as floats again."""
    return _restore(json.loads(Path(path).read_text(encoding="utf-8")))


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
        with open(temporary, "w", encoding="utf-8") as file:
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

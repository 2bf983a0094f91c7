"""Where records come from: JSONL files (prepared once as array_record), TFDS datasets, or lists in memory.

A source is a sequence of records with a content hash. Bounds: a line holds at most ``MAX_LINE_BYTES``, a file at most
``MAX_FILE_BYTES`` after decompression; records stay on disk and are read by number.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from rlx import bounds
from rlx.data.formats import Parser, Record, bind
from rlx.data.rows import BadRow
from rlx.errors import UserError, close_matches, one_line

MAX_LINE_BYTES = 4 * 2**20
MAX_FILE_BYTES = 4 * 2**30


class Source(Protocol):
    """Records by number. ``content`` is a hash of everything that decides them."""

    parser: Parser
    format: str  # of the file; `parser` may read what was prepared from it
    content: str
    max_candidates: int
    skipped: int
    reasons: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class Located(NamedTuple):
    """A row with its place, ``file:line``; ``values`` is a ``BadRow`` where the line could not be read."""

    place: str
    values: Any


class Rows:
    """Parses located rows: the first usable one settles the format, a bad one raises or is counted.

    Args:
        rows: the rows, in order.
        parser: format (maybe ``auto``), field names, bounds.
        kind: what the rows will be used as.
        skip: whether a bad row is dropped and counted rather than an error.
        limit: take this many usable rows at most.
        origin: the name of the whole in messages.
    """

    def __init__(
        self, rows: Iterable[Located], parser: Parser, kind: str, *, skip: bool, limit: int | None, origin: str
    ):
        self.rows, self.parser, self.kind, self.skip, self.limit, self.origin = rows, parser, kind, skip, limit, origin
        self.bound = False
        self.number = -1  # of the row that gave the last record
        self.taken = self.skipped = self.max_candidates = 0
        self.reasons: list[str] = []  # the first three

    def __iter__(self) -> Iterator[Record]:
        """Yields the records.

        Raises:
            UserError: a bad row (unless they are skipped), or no usable row at all.
        """
        for number, (place, values) in enumerate(self.rows):
            if self.limit is not None and self.taken >= self.limit:
                break
            try:
                record = self._parse(values)
            except BadRow as error:
                self._bad(one_line(f"{place}: {error}", 1500))
                continue
            self.number = number
            self.taken += 1
            self.max_candidates = max(self.max_candidates, len(record.responses))
            yield record
        if not self.taken:
            why = f"; the first: {self.reasons[0]}" if self.reasons else ""
            raise UserError(f"{self.origin} holds no usable row ({self.skipped} skipped{why}).")

    def _parse(self, values: Any) -> Record:
        if isinstance(values, BadRow):
            raise values
        parser = self.parser if self.bound else bind(self.parser, values, self.kind)
        record = parser(values)
        self.parser, self.bound = parser, True
        return record

    def _bad(self, message: str) -> None:
        if not self.skip:
            raise UserError(message) from None
        self.skipped += 1
        self.reasons = [*self.reasons, message][:3]


def jsonl_rows(path: Path) -> Iterator[Located]:
    """Yields the rows of a JSONL file, gzip or not (told by its first bytes); blank lines are passed over."""
    for number, line in _lines(path):
        if number == 1 and not isinstance(line, BadRow):
            line = line.removeprefix(b"\xef\xbb\xbf")
        if isinstance(line, BadRow) or line.strip():
            yield Located(f"{path}:{number}", line if isinstance(line, BadRow) else _json(line))


def _json(line: bytes) -> Any:
    try:
        return bounds.loads(line.decode())
    except UnicodeDecodeError as error:
        return BadRow(f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8.")
    except bounds.Malformed as error:
        return BadRow(f"{error}; each line must hold one object.")


def _lines(path: Path) -> Iterator[tuple[int, bytes | BadRow]]:
    number = total = 0
    try:
        with _open(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number, total = number + 1, total + len(line)
                oversized = len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")
                yield number, BadRow(f"the line is longer than {MAX_LINE_BYTES} bytes.") if oversized else line
                while oversized and line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                    total = _within(path, total + len(line))
                _within(path, total)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}:{number + 1}: the gzip file is damaged or cut off ({error}); get it again.") from None


def _within(path: Path, total: int) -> int:
    if total > MAX_FILE_BYTES:
        raise UserError(
            f"{path} holds more than {MAX_FILE_BYTES} bytes: set data.limit, split it, or use data.source='tfds'."
        )
    return total


def _open(path: Path) -> Any:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def find_file(path: str | Path) -> Path:
    """Returns the path of a file that exists, or raises ``UserError`` with the close matches beside it."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"data.path: {file} is a folder; name a .jsonl or .jsonl.gz file in it.")
    if not file.is_file():
        near = close_matches(file.name, [other.name for other in file.parent.glob("*")])
        raise UserError(f"data.path: no file {file}.{near}")
    return file


def hash_files(paths: Iterable[Path]) -> str:
    """Returns the SHA-256 of the bytes of files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """Returns the SHA-256 of a JSON-able value.

    >>> hash_json({"b": 1, "a": (2,)}) == hash_json({"a": [2], "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class MemorySource:
    """Records in a list: for data that a program has generated."""

    def __init__(self, rows: Rows):
        self.records = list(rows)
        self.parser, self.format, self.max_candidates = rows.parser, rows.parser.format, rows.max_candidates
        self.skipped = rows.skipped
        self.reasons: Sequence[str] = rows.reasons
        self.content = hash_json(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]


def memory_rows(records: Iterable[Any]) -> Iterator[Located]:
    """Yields the rows of a list; values may be NumPy arrays."""
    for number, values in enumerate(records):
        yield Located(f"data.records[{number}]", plain(values))


def plain(value: Any) -> Any:
    """Returns ``value`` as JSON would hold it: no arrays, no bytes, no tuples (what TFDS and NumPy give).

    >>> plain({"prompt": b"a", "scores": np.array([1.0]), "prompt_ids": (1, np.int64(2))})
    {'prompt': 'a', 'scores': [1.0], 'prompt_ids': [1, 2]}
    """
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value

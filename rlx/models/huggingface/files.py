"""The safetensors format: a bounded header of JSON, then plain numbers; nothing in it can run.

A file is 8 bytes with the length of the header (little endian), the header ``{name: {"dtype", "shape",
"data_offsets"}}``, and the data (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rlx.errors import UserError, one_line

HEADER_LIMIT = 100_000_000
"""Bytes of a header that are read at most, as the format's own library has it."""
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


class Entry(NamedTuple):
    """A tensor of a file.

    Attributes:
        file: that holds it.
        dtype: its name in the format, ``BF16``.
        shape: sizes.
        begin: its first byte, from the start of the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """A part of the tensor, copied: only its pages are read.

        Raises:
            UserError: its type is none of :data:`DTYPES`.
        """
        if self.dtype not in DTYPES:
            raise UserError(
                f"{self.file} has a tensor of type {one_line(self.dtype, 20)}; read are {', '.join(DTYPES)}."
            )
        kind = np.dtype(DTYPES[self.dtype])
        size = math.prod(self.shape) * kind.itemsize
        if not size:
            return np.zeros(self.shape, kind)[index]
        data = np.memmap(self.file, np.uint8, "r", self.begin, (size,))
        return np.array(data.view(kind).reshape(self.shape)[index])


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of a file by name; no number is read.

    Raises:
        UserError: the file is truncated, or its header is too long, no JSON or at odds with the file's size.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise UserError(f"{file} is truncated, or no safetensors file: {size} bytes, a header of {length}")
            if length > HEADER_LIMIT:
                raise UserError(f"{file}: a header of {length} bytes is refused, at most {HEADER_LIMIT} are read")
            text = stream.read(length)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
    entries = parse_json(text, file)
    entries.pop("__metadata__", None)
    found = {name: _entry(file, name, entry, 8 + length, size) for name, entry in entries.items()}
    end = 8 + length
    for name, entry in sorted(found.items(), key=lambda item: item[1].begin):
        if entry.begin < end:
            raise UserError(f"{file}: the tensor {name!r} overlaps with another one")
        end = entry.begin + math.prod(entry.shape) * _SIZES.get(entry.dtype, 1)
    return found


def parse_json(text: bytes, file: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        UserError: it is none, or says one key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        found = json.loads(text.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} holds no JSON that can be read: {one_line(error, 100)}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} holds a JSON {type(found).__name__}, not an object")
    return found


def _entry(file: Path, name: str, entry: Any, start: int, size: int) -> Entry:
    def whole(x: Any) -> bool:
        return isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**63

    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    lists = all(isinstance(x, list) and len(x) <= 64 and all(map(whole, x)) for x in (shape, offsets))
    if not isinstance(dtype, str) or not lists or len(offsets) != 2:
        raise UserError(f"{file}: the header says nothing sensible of the tensor {name[:80]!r}")
    begin, end = offsets
    if not begin <= end <= size - start:
        raise UserError(f"{file} is truncated: the tensor {name[:80]!r} ends at byte {start + end} of {size}")
    if dtype in _SIZES and end - begin != math.prod(shape) * _SIZES[dtype]:
        raise UserError(
            f"{file}: {end - begin} bytes are no {one_line(dtype, 20)} tensor {name[:80]!r} of shape {shape}"
        )
    return Entry(file, dtype, tuple(shape), start + begin)


class Source(NamedTuple):
    """A tensor to be written: ``read()`` gives its numbers when their turn has come."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def write(file: Path, sources: Iterable[Source], dtype: str) -> None:
    """Writes tensors one after the other, as ``dtype`` (``BF16``); one of them at a time is on the host.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "x.safetensors")
    >>> write(file, [Source("x", (2, 2), lambda: np.eye(2))], "BF16")
    >>> print(read_header(file)["x"][:, :1].tolist())
    [[1.0], [0.0]]
    """
    kind, end, sources = np.dtype(DTYPES[dtype]), 0, list(sources)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for source in sources:
        begin, end = end, end + math.prod(source.shape) * kind.itemsize
        header[source.name] = {"dtype": dtype, "shape": list(source.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for source in sources:
            stream.write(np.ascontiguousarray(source.read(), kind).view(np.uint8).data)
        stream.flush()
        os.fsync(stream.fileno())

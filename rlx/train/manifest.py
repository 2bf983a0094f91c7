"""What was written is checked when it is read: a manifest with the size and the CRC-32 of every file of a folder.

The manifest is written last, after every file has reached the disk, and so stands for the whole. A CRC-32 finds a
truncation, a flipped byte or a burst for sure, other accidents but for one in 2^32; it is no proof against malice. It
costs less than a cryptographic sum, and files are read on up to four cores.
"""

from __future__ import annotations

import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlx.errors import one_line

NAME = "manifest.json"
CHUNK = 2**24
THREADS = 4


def write(folder: Path, *, checksums: bool = True) -> None:
    """Writes the manifest of what is in a folder, once all of it is on the disk.

    Args:
      folder: holds the files, at any depth.
      checksums: False: sizes alone.

    Raises:
      OSError: a file cannot be read back, or not be brought to the disk.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda path: _settled(path, checksums), files))
    names = (str(path.relative_to(folder)) for path in files)
    with open(folder / NAME, "w", encoding="utf-8") as file:
        json.dump({"checksum": "crc32", "files": dict(zip(names, found, strict=True))}, file)
        file.flush()
        os.fsync(file.fileno())
    for inside in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(inside)


def problem(folder: Path, *, checksums: bool = True) -> str:
    """What is wrong with the files of a folder, by its manifest; an empty string where nothing is.

    Args:
      folder: that :func:`write` was called on.
      checksums: False: compare sizes alone.
    """
    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        files = {str(name): (int(size), crc) for name, (size, crc) in manifest["files"].items()}
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return f"{NAME} cannot be read: {_first_line(error)[:200]}"
    strange = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts or len(name) > 1000]
    if strange:
        return f"{NAME} names a file that is not in the folder: {strange[0][:100]!r}"
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda item: _differs(folder, item, checksums), files.items())
        return next((reason for reason in found if reason), "")


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settled(path: Path, checksums: bool) -> tuple[int, int | None]:
    """Size and checksum of a file that is on the disk: what a network or a full disk refuses late comes up here."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_size, _crc(path) if checksums else None


def _differs(folder: Path, item: tuple[str, tuple[int, int | None]], checksums: bool) -> str:
    (name, (size, crc)), path = item, folder / item[0]
    name = one_line(name, 100)
    try:
        has = path.stat().st_size
        if has != size:
            return f"{name} has {has} bytes of {size}"
        if checksums and crc is not None and _crc(path) != crc:
            return f"{name} does not hold what was written: its checksum differs"
    except (FileNotFoundError, ValueError):  # a name that no file can have
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return ""


def _crc(path: Path) -> int:
    found = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]

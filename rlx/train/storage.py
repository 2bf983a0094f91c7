"""A disk that is full, read-only, gone or broken: told apart from mistakes in the program, in one line."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rlx.errors import UserError

ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ENODEV,
    errno.ENXIO,
    errno.EMFILE,
    errno.ENFILE,
)
"""What a storage may say no with."""


class StorageError(UserError):
    """A file cannot be written: the message names it and the reason."""


def reason(error: BaseException | None) -> str:
    """What the storage says in an error or in one behind it; an empty string where it has said nothing.

    Libraries in other languages raise their own classes, with the words of the system in the text.

    >>> reason(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device'
    >>> reason(ValueError("RESOURCE_EXHAUSTED: Error writing /w/d: No space left on device [OS error 28]"))
    'No space left on device'
    >>> reason(ValueError("shapes differ"))
    ''
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in ERRNOS:
            return os.strerror(error.errno)
        if not isinstance(error, UserError):
            said = next((text for text in map(os.strerror, ERRNOS) if text in str(error)), "")
            if said:
                return said
        error = error.__cause__ or error.__context__
    return ""


def named(error: BaseException) -> Path | None:
    """The file that an error is about, where it says so."""
    name = getattr(error, "filename", None)
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the storage refuses within the context into a :class:`StorageError` about ``path``.

    Raises:
      StorageError: it has refused.
    """
    hook = sys.unraisablehook
    for name in ("asyncio", "absl"):
        logging.getLogger(name).addFilter(_is_news)
    sys.unraisablehook = partial(_tell_news, hook)
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        said = reason(error)
        if not said:
            raise
        hook = sys.unraisablehook  # other writers find their loop gone some time later
        raise StorageError(f"cannot write {path}: {said}.") from error
    finally:
        sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message says more than the error that the run stops with: not what each writer has met alone."""
    return not (record.exc_info and reason(record.exc_info[1]))


def _tell_news(hook: Callable[..., Any], unraisable: Any) -> None:
    """The same of what threads of TensorStore meet: their writes end after the loop that has waited for them."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)

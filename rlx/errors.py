"""The errors a user can cause, and the close matches they name."""

import difflib
from collections.abc import Iterable

_LONGEST = 1600  # characters of a message
_LONGEST_NAME, _MOST_NAMES = 100, 2000  # difflib takes time with the product of lengths


class UserError(ValueError):
    r"""A mistake in a config, a data file, an array or a checkpoint: the message names the culprit and the remedy.

    It quotes what strangers wrote: control characters but line feeds are shown as escapes, and the middle of a very
    long message is left out.

    >>> str(UserError("no file a\x1b[2J"))
    'no file a\\x1b[2J'
    """

    def __init__(self, message: object = ""):
        letters = (c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in _cut(str(message)))
        super().__init__(_cut("".join(letters)))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 500]} ... {text[-400:]}"


def close_matches(name: str, options: Iterable[str]) -> str:
    """Returns ``" Did you mean 'x'?"`` for the options nearest to ``name``, or an empty string.

    >>> close_matches("betta", ["beta", "epsilon"])
    " Did you mean 'beta'?"
    >>> close_matches("xyz", ["beta"])
    ''
    """
    name = str(name)
    if len(name) > _LONGEST_NAME:
        return ""
    near = [text for text in map(str, options) if len(text) <= _LONGEST_NAME][:_MOST_NAMES]
    found = difflib.get_close_matches(name, near, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def one_line(text: object, limit: int = 400) -> str:
    """A text that others wrote, fit for a message: on one line, without control characters, at most ``limit`` long.

    >>> one_line("two\\nlines"), one_line("a" * 9, 6)
    ('two\\\\nlines', 'aaa...')
    """
    shown = str(text)
    shown = shown if len(shown) <= limit else shown[: max(0, limit - 3)] + "..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)

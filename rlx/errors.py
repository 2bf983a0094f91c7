"""The errors a user can cause, and the close matches they name."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a config, a data file, an array or a checkpoint: the message names the culprit and the remedy."""


def close_matches(name: str, options: Iterable[str]) -> str:
    """Returns ``" Did you mean 'x'?"`` for the options nearest to ``name``, or an empty string.

    >>> close_matches("betta", ["beta", "epsilon"])
    " Did you mean 'beta'?"
    >>> close_matches("xyz", ["beta"])
    ''
    """
    found = difflib.get_close_matches(str(name), [str(option) for option in options], n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""

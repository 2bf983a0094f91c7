"""Parts that a config names by a string and a notebook hands over as they are."""

from collections.abc import Mapping
from typing import TypeVar

from rlx import errors

Part = TypeVar("Part")


def by_name(part: str | Part, known: Mapping[str, Part], what: str) -> Part:
    """The part that a string names; anything else is the part itself.

    Args:
      part: a name of ``known``, or a part of your own.
      known: name -> part.
      what: what the part is, for the error.

    Raises:
      UserError: an unknown name, with close matches.

    >>> by_name("uniforn", {"uniform": 1}, "weighting")
    Traceback (most recent call last):
    rlx.errors.UserError: Unknown weighting 'uniforn'. Did you mean 'uniform'? Known: uniform.
    """
    if not isinstance(part, str):
        return part
    if part not in known:
        raise errors.UserError(
            f"Unknown {what} {part!r}.{errors.close_matches(part, known)} Known: {', '.join(known)}."
        )
    return known[part]

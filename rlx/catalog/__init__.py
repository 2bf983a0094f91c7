"""The catalogue, name -> :class:`Entry`: function, source, provenance, exemptions; a dict literal per family."""

from rlx import errors
from rlx.catalog import (
    advantages,
    discriminative,
    entropy,
    evaluation,
    game,
    listwise,
    nested,
    pairwise,
    policy,
    reward,
    shaping,
    statistics,
    token_level,
)
from rlx.catalog.entry import Entry

FAMILIES: dict[str, dict[str, Entry]] = {
    "pairwise": pairwise.ENTRIES,
    "token_level": token_level.ENTRIES,
    "listwise": listwise.ENTRIES,
    "game": game.ENTRIES,
    "reward": reward.ENTRIES,
    "evaluation": evaluation.ENTRIES,
    "advantages": advantages.ENTRIES,
    "nested": nested.ENTRIES,
    "policy": policy.ENTRIES,
    "discriminative": discriminative.ENTRIES,
    "entropy": entropy.ENTRIES,
    "statistics": statistics.ENTRIES,
    "shaping": shaping.ENTRIES,
}
CATALOG: dict[str, Entry] = {name: entry for entries in FAMILIES.values() for name, entry in entries.items()}


def lookup(name: str) -> Entry:
    """The entry of a name; an unknown one raises a UserError with close matches."""
    if name not in CATALOG:
        raise errors.UserError(
            f"Unknown method {name!r}.{errors.close_matches(name, CATALOG)} See METHODS.md for all names."
        )
    return CATALOG[name]

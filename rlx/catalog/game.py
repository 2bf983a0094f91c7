"""Nash learning."""

from rlx.catalog.entry import Entry

ENTRIES: dict[str, Entry] = {}

"""Statistics of next-token distributions: entropies, covariances, and what they predict."""

from rlx.catalog.entry import Entry

ENTRIES: dict[str, Entry] = {}

"""Nested groups: segments, turns, anchor states, trees; and evolution strategies."""

from rlx.catalog.entry import Entry

ENTRIES: dict[str, Entry] = {}

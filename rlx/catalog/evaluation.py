"""Evaluation statistics and tournaments."""

from rlx.catalog.entry import Entry

ENTRIES: dict[str, Entry] = {}

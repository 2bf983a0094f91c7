"""Reward shaping, and what is sampled, kept and how often: budgets, filters, votes."""

from rlx.catalog.entry import Entry

ENTRIES: dict[str, Entry] = {}

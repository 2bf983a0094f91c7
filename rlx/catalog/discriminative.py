"""Discriminative and mixed policy losses, value losses, and corrections of the rollout's policy."""

from rlx.catalog.entry import Entry

ENTRIES: dict[str, Entry] = {}

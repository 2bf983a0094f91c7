"""Preference losses that read tokens."""

from rlx.catalog.entry import Entry
from rlx.preference import token_level

ENTRIES: dict[str, Entry] = {
    "tdpo": Entry(
        token_level.tdpo,
        kind="loss",
        paper="arXiv:2404.11999",
        provenance="official code",
        equation="-log s(beta (m - alpha (K_l - sg K_w))), K = sum_t KL(ref || pi)",
    ),
    "tdpo1": Entry(
        token_level.tdpo1,
        kind="loss",
        paper="arXiv:2404.11999",
        provenance="official code",
        equation="-log s(beta (m - (K_l - K_w))), K = sum_t KL(ref || pi)",
        vectors=("tdpo",),
    ),
}

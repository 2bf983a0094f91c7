"""Reward models."""

from rlx.catalog.entry import Entry
from rlx.reward import bradley_terry, general_preference

ENTRIES: dict[str, Entry] = {
    "gpm": Entry(
        general_preference.gpm,
        kind="loss",
        paper="arXiv:2410.02197",
        provenance="official code",
        equation="-log s((sum_j v_w[2j] v_l[2j+1] - v_w[2j+1] v_l[2j] - margin)/tau)",
        method=general_preference.gpm_method,
    ),
    "bradley_terry_rm": Entry(
        bradley_terry.bradley_terry_rm,
        kind="loss",
        paper="arXiv:2204.05862",
        provenance="peer library",
        equation="(1-eps) f(z) + eps f(-z), z = (r_w - r_l - margin)/tau",
    ),
}

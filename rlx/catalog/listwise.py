"""Losses of lists, and distillation."""

from rlx.catalog.entry import Entry
from rlx.preference import distillation, listwise

ENTRIES: dict[str, Entry] = {
    "adpo_listwise": Entry(
        listwise.adpo_listwise,
        kind="loss",
        data="lists",
        paper="arXiv:2510.18913",
        provenance="equation",
        equation="-sum_i q_i log softmax(d/tau)_i, q = softmax(scores/beta_r)",
    ),
    "adpo_pairwise": Entry(
        listwise.adpo_pairwise,
        kind="loss",
        paper="arXiv:2510.18913",
        provenance="equation",
        equation="-q log s(m/tau) - (1-q) log s(-m/tau)",
    ),
    "listmle": Entry(
        listwise.listmle,
        kind="loss",
        data="lists",
        paper="Xia et al., ICML 2008",
        provenance="peer library",
        equation="sum_k logsumexp_{l>=k} s_l - s_k, labels descending",
        aliases={"rax": "listmle_loss"},
    ),
    "pld": Entry(
        distillation.pld,
        kind="loss",
        data="sft",
        paper="arXiv:2506.12542",
        provenance="equation",
        equation="sum_k softmax(t/T)_k (logsumexp_{l>=k} s_l - s_k), target first, then by teacher",
    ),
    "pld_token_level": Entry(
        distillation.pld_token_level,
        kind="loss",
        data="sft",
        paper="arXiv:2506.12542",
        provenance="equation",
        equation="pld at every token",
    ),
}

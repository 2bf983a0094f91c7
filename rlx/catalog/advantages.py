"""Advantage estimators: from rewards of a group, and over the tokens of a response."""

from rlx.catalog.entry import Entry
from rlx.policy import advantages

ENTRIES: dict[str, Entry] = {
    "grpo_advantage": Entry(
        advantages.grpo_advantage,
        kind="advantage",
        paper="arXiv:2402.03300",
        provenance="official code",
        equation="(r - mean r) / (std r + epsilon)",
        coupling="group",
        aliases={"verl": "grpo"},
    ),
    "gae_advantage": Entry(
        advantages.gae_advantage,
        kind="advantage",
        paper="arXiv:1506.02438",
        provenance="official code",
        equation="A_t = r_t + gamma V_t' - V_t + gamma lam A_t', t' the next real token",
        aliases={"verl": "gae"},
    ),
}

"""Policy losses on a ratio, and recipes."""

from rlx.catalog.entry import Entry
from rlx.policy import clipped

ENTRIES: dict[str, Entry] = {
    "ppo_clip_loss": Entry(
        clipped.ppo_clip_loss,
        kind="loss",
        paper="arXiv:1707.06347",
        provenance="official code",
        equation="w max(-A r, -A clip(r, 1-l, 1+h)), at most -w A c where A < 0",
        aliases={"verl": "vanilla", "trl": "grpo"},
        vectors=("ppo_clip_loss", "loss_aggregation"),
    ),
    "gspo_loss": Entry(
        clipped.gspo_loss,
        kind="loss",
        paper="arXiv:2507.18071",
        provenance="official code",
        equation="max(-A s, -A clip(s, 1-l, 1+h)), s = exp(mean_t log r_t)",
        aliases={"verl": "gspo"},
    ),
}

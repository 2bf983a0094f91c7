"""Discriminative and mixed policy losses, value losses, and corrections of the rollout's policy."""

from rlx.catalog.entry import Entry
from rlx.policy import corrections, value

ENTRIES: dict[str, Entry] = {
    "value_clip_loss": Entry(
        value.value_clip_loss,
        kind="loss",
        paper="arXiv:1707.06347",
        provenance="official code",
        equation="max((V - R)^2, (clip(V, V_old +- c) - R)^2) / 2",
        aliases={"verl": "compute_value_loss"},
    ),
    "truncated_importance_sampling": Entry(
        corrections.truncated_importance_sampling,
        kind="weights",
        paper="https://fengyao.notion.site/off-policy-rl",
        provenance="official code",
        equation="min(pi_train / pi_rollout, C), of a token or of the response",
        coupling="batch",
        aliases={"verl": "rollout_is", "trl": "vllm_importance_sampling_correction"},
    ),
    "rollout_rejection_sampling": Entry(
        corrections.rollout_rejection_sampling,
        kind="weights",
        paper="verl, rollout_rs",
        provenance="official code",
        equation="lower <= k(log pi_train - log pi_rollout) <= upper, of a token or of the response",
        aliases={"verl": "rollout_rs"},
    ),
    "off_policy_sequence_mask": Entry(
        corrections.off_policy_sequence_mask,
        kind="weights",
        paper="arXiv:2512.02556",
        provenance="peer library",
        equation="A >= 0 or mean_t log(pi_rollout / pi) <= delta",
        aliases={"trl": "off_policy_mask_threshold"},
    ),
}

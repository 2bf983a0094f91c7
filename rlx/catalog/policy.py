"""Policy losses on a ratio: published methods, and what TRL calls by its own names."""

from collections.abc import Mapping
from typing import Any

from rlx import aggregate, stages
from rlx.catalog import recipes
from rlx.catalog.entry import Entry
from rlx.policy import clipped, group_reinforce, ratios, regularize, weighted

REFERENCE = {"beta": "reference_logprobs"}
TOKEN = stages.ratio_of(f"token({ratios.OVERFLOW})")
SEQUENCE = stages.ratio_of(f"sequence({ratios.OVERFLOW})")
TRL: Mapping[str, Any] = {
    "ratio": TOKEN,
    "estimator": regularize.low_variance(maximum=float("inf")),
    "correct_kl": True,
}
"""TRL clamps no ratio and no KL, and multiplies the KL by the ratio. The bounds here only keep float32 finite."""
EMPTY_ROWS = {
    "masked_is_removed": "TRL divides by all rows: a row without tokens counts, so removing it changes the mean"
}
REC: Mapping[str, Any] = {"paper": "arXiv:2509.24203", "provenance": "official code"}
PEER: Mapping[str, Any] = {"kind": "loss", "provenance": "peer library", "requires": REFERENCE}

ENTRIES: dict[str, Entry] = {
    "ppo_clip_loss": Entry(
        clipped.ppo_clip_loss,
        kind="loss",
        paper="arXiv:1707.06347",
        provenance="official code",
        equation="w max(-A r, -A clip(r, 1-l, 1+h)), at most -w A c where A < 0",
        requires=REFERENCE,
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
    "gmpo_loss": Entry(
        clipped.gmpo_loss,
        kind="loss",
        paper="arXiv:2507.20673",
        provenance="official code",
        equation="-A exp(mean_t of log r_t, clipped in log space where that is pessimistic)",
        aliases={"verl": "geo_mean"},
    ),
    "spo_probability_mask_loss": Entry(
        clipped.spo_probability_mask_loss,
        kind="loss",
        paper="arXiv:2505.23564",
        provenance="equation",
        equation="max(-A r, -A clip(r, 1-e, 1+e)) on the tokens with pi_old < threshold",
    ),
    "sapo_loss": Entry(
        weighted.sapo_loss,
        kind="loss",
        paper="arXiv:2511.20347",
        provenance="official code",
        equation="-A (4/tau) sigmoid(tau (r - 1)), tau by the sign of A",
        requires=REFERENCE,
        aliases={"verl": "sapo"},
    ),
    "cispo_loss": Entry(
        weighted.cispo_loss,
        kind="loss",
        paper="arXiv:2506.13585",
        provenance="official code",
        equation="-sg[clip(r, 1-l, 1+h)] A log pi",
        requires=REFERENCE,
        aliases={"verl": "cispo"},
    ),
    "reinforce_loss": Entry(
        weighted.reinforce_loss,
        kind="loss",
        paper="Williams, Machine Learning 8, 1992",
        provenance="official code",
        equation="-w A log pi",
        vectors=("gpg_loss", "reinforce_is_loss"),
    ),
    "gpg_loss": Entry(
        weighted.reinforce_loss,
        kind="loss",
        paper="arXiv:2504.02546",
        provenance="official code",
        equation="-A log pi",
        aliases={"verl": "gpg"},
    ),
    "reinforce_is_loss": Entry(
        weighted.reinforce_loss,
        kind="loss",
        paper="verl, rollout correction",
        provenance="official code",
        equation="-w A log pi, summed over the response",
        preset={"reduce": aggregate.sequence_sum},
        aliases={"verl": "reinforce"},
    ),
    "opmd_loss": Entry(
        weighted.opmd_loss,
        kind="loss",
        **REC,
        equation="-A log pi / (1 + tau)",
        aliases={"trinity": "opmd"},
    ),
    "topr_loss": Entry(
        weighted.topr_loss,
        kind="loss",
        paper="arXiv:2503.14286",
        provenance="peer library",
        equation="-sg[a] A log pi, a = clip(r, 0, 1) where A <= threshold else 1",
        aliases={"trinity": "topr"},
    ),
    "rec_one_side_loss": Entry(
        group_reinforce.rec_one_side_loss,
        kind="loss",
        **REC,
        equation="-w A log pi where A >= 0, r <= 1+h or A <= 0, r >= 1-l",
        aliases={"trinity": "rec one-side"},
    ),
    "rec_two_side_loss": Entry(
        group_reinforce.rec_two_side_loss,
        kind="loss",
        **REC,
        equation="-w A log pi where 1-l <= r <= 1+h",
        aliases={"trinity": "rec two-side"},
    ),
    "rec_ring_loss": Entry(
        group_reinforce.rec_ring_loss,
        kind="loss",
        **REC,
        equation="-w A log pi where 1-l <= r <= 1+h, or far outside on the side that pulls back",
        aliases={"trinity": "rec ring"},
    ),
    "red_weight_loss": Entry(
        group_reinforce.red_weight_loss,
        kind="loss",
        **REC,
        equation="-(A exp(A/T) + c_f) log pi + c_2 (log pi - log pi_old)^2",
        aliases={"trinity": "rec, weight advantage"},
    ),
    "vespo_loss": Entry(
        weighted.vespo_loss,
        kind="loss",
        paper="TRL",
        provenance="peer library",
        equation="-sg[s^k exp(lam (1 - s))] A log pi, s = prod_t r_t, (k, lam) by the sign of A",
        requires=REFERENCE,
        aliases={"trl": "vespo"},
        vectors=("trl_vespo_loss",),
    ),
    "trl_grpo_loss": Entry(
        clipped.ppo_clip_loss,
        **PEER,
        paper="arXiv:2402.03300",
        equation="mean_i (1/n_i) sum_t max(-A min(r, cap), -A clip(r, 1-l, 1+h)) + beta r k3",
        preset={**TRL, "reduce": aggregate.sequence_mean_with_empty},
        aliases={"trl": "grpo"},
        exempt=EMPTY_ROWS,
    ),
    "trl_bnpo_loss": Entry(
        clipped.ppo_clip_loss,
        **PEER,
        paper="TRL",
        equation="token mean of max(-A min(r, cap), -A clip(r, 1-l, 1+h)) + beta r k3",
        preset=TRL,
        aliases={"trl": "bnpo"},
    ),
    "trl_dr_grpo_loss": Entry(
        clipped.ppo_clip_loss,
        **PEER,
        paper="arXiv:2503.20783",
        equation="sum over tokens of max(-A min(r, cap), -A clip(r, 1-l, 1+h)) + beta r k3, / (B L), here L = 256",
        preset={**TRL, "reduce": aggregate.constant(256, empty=True)},
        aliases={"trl": "dr_grpo"},
        exempt=EMPTY_ROWS,
    ),
    "trl_dapo_loss": Entry(
        clipped.ppo_clip_loss,
        **PEER,
        paper="arXiv:2503.14476",
        equation="mean over the tokens of the global batch of max(-A min(r, cap), -A clip(r, 1-l, 1+h)) + beta r k3",
        preset=TRL,
        aliases={"trl": "dapo"},
    ),
    "trl_gspo_loss": Entry(
        clipped.ppo_clip_loss,
        **PEER,
        paper="arXiv:2507.18071",
        equation="mean_i max(-A s, -A clip(s, 1-l, 1+h)) + beta s k3, s = exp(mean_t log r_t), differentiated",
        preset={**TRL, "ratio": SEQUENCE, "reduce": aggregate.sequence_mean_with_empty},
        aliases={"trl": "importance_sampling_level=sequence"},
        exempt=EMPTY_ROWS,
    ),
    "trl_luspo_loss": Entry(
        clipped.ppo_clip_loss,
        **PEER,
        paper="TRL",
        equation="mean_i n_i max(-A s, -A clip(s, 1-l, 1+h)), s = exp(mean_t log r_t)",
        preset={**TRL, "ratio": SEQUENCE, "reduce": aggregate.sequence_sum_with_empty},
        aliases={"trl": "luspo"},
        exempt=EMPTY_ROWS,
    ),
    "trl_vllm_is_grpo_loss": Entry(
        clipped.ppo_clip_loss,
        **PEER,
        paper="TRL",
        equation="trl_grpo_loss with the importance weights of the sampler as weights",
        preset={**TRL, "reduce": aggregate.sequence_mean_with_empty},
        aliases={"trl": "vllm_importance_sampling_correction"},
        exempt=EMPTY_ROWS,
    ),
    "trl_sapo_loss": Entry(
        weighted.sapo_loss,
        **PEER,
        paper="arXiv:2511.20347",
        equation="sapo_loss, rows without tokens counted",
        preset={**TRL, "reduce": aggregate.sequence_mean_with_empty},
        aliases={"trl": "sapo"},
        exempt=EMPTY_ROWS,
    ),
    "trl_cispo_loss": Entry(
        weighted.cispo_loss,
        **PEER,
        paper="arXiv:2506.13585",
        equation="-sg[min(r, 1 + h)] A log pi, token mean of the global batch",
        preset=TRL,
        aliases={"trl": "cispo"},
    ),
    "trl_vespo_loss": Entry(
        weighted.vespo_loss,
        **PEER,
        paper="TRL",
        equation="vespo_loss, with TRL's KL",
        preset={"estimator": TRL["estimator"]},
        aliases={"trl": "vespo"},
    ),
    **recipes.ENTRIES,
}
"""TRL's own constants: ``epsilon_high`` of DAPO is 0.28 in its paper and 0.2 in TRL unless it is set; so is it here."""

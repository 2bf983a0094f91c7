"""Discriminative and mixed policy losses, value losses, and corrections of the rollout's policy."""

import math

from rlx.catalog.entry import Entry
from rlx.method import Coupled
from rlx.policy import corrections, discriminative, mixed, value

_PRICE = {"price": Coupled(discriminative.disco_price)}
_DISCO = "arXiv:2505.12366"

ENTRIES: dict[str, Entry] = {
    "disco_logl_loss": Entry(
        discriminative.disco,
        kind="loss",
        paper=_DISCO,
        provenance="official code",
        equation="-(mean_+ s - tau log mean_- exp(s / tau)) + sg[beta (KL - delta)_+] KL, s = mean_t log pi",
        coupling="batch",
        coupled=_PRICE,
    ),
    "disco_lratio_loss": Entry(
        discriminative.disco,
        kind="loss",
        paper=_DISCO,
        provenance="official code",
        equation="DisCO with s = mean_t pi / pi_old",
        coupling="batch",
        coupled=_PRICE,
        preset={"score": "likelihood_ratio", "tau": 1.0},
    ),
    "discob_logl_loss": Entry(
        discriminative.disco,
        kind="loss",
        paper=_DISCO,
        provenance="official code",
        equation="-(mean_+ s - mean_- s) + sg[beta (KL - delta)_+] KL, s = mean_t log pi",
        coupling="batch",
        coupled=_PRICE,
        preset={"tau": math.inf},
    ),
    "discob_lratio_loss": Entry(
        discriminative.disco,
        kind="loss",
        paper=_DISCO,
        provenance="official code",
        equation="DisCO-b with s = mean_t pi / pi_old",
        coupling="batch",
        coupled=_PRICE,
        preset={"score": "likelihood_ratio", "tau": math.inf},
    ),
    "drpo_loss": Entry(
        discriminative.disco,
        kind="loss",
        paper="arXiv:2510.04474",
        provenance="official code",
        equation="DisCO with right responses weighted by exp((1 - |y| / C) / lambda)",
        coupling="batch",
        coupled=_PRICE,
        preset={"lam": 0.1},
    ),
    "reg_grpo_loss": Entry(
        discriminative.reg_grpo_loss,
        kind="loss",
        paper="arXiv:2506.07464",
        provenance="equation",
        equation="(z(r) - z(rho))^2, rho = sum_t log(pi / pi_old), z = (x - mean) / (std + epsilon)",
        coupling="group",
    ),
    "critique_grpo_loss": Entry(
        mixed.critique_grpo_loss,
        kind="loss",
        paper="arXiv:2506.03106",
        provenance="official code",
        equation="max(-A r, -A clip(r, 1-eps, u)); of refinements -A pi / (pi + gamma)",
    ),
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

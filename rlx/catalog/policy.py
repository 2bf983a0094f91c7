"""Policy gradients: advantages, surrogates, regularisers."""

from rlx.catalog.entry import Entry
from rlx.method import Coupled
from rlx.policy import advantages, clipped, entropy, regularize, select

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
    "clip_cov": Entry(
        entropy.clip_cov,
        kind="loss",
        paper="arXiv:2505.22617",
        provenance="official code",
        equation="k max(-A r, -A clip(r, 1-l, 1+h)), k = 0 for random tokens with a < cov < b",
        coupling="batch",
        coupled={"keep": Coupled(select.clip_cov_keep, per_unit=True)},
        aliases={"verl": "clip_cov"},
        exempt={
            "permutation": "candidates are drawn by their position in the batch: only the distribution is invariant"
        },
    ),
    "kl_cov": Entry(
        entropy.kl_cov,
        kind="loss",
        paper="arXiv:2505.22617",
        provenance="official code",
        equation="-A r + c [t in S] |log pi - log pi_old|, S the largest covariances",
        coupling="batch",
        coupled={"selected": Coupled(select.kl_cov_select, per_unit=True)},
        aliases={"verl": "kl_cov"},
    ),
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
    "kl_penalty": Entry(
        regularize.kl_penalty,
        kind="statistic",
        paper="http://joschu.net/blog/kl-approx.html",
        provenance="official code",
        equation="k1 = d, k2 = d^2/2, k3 = e^-d - 1 + d, d = log pi - log ref",
        aliases={"verl": "kl_penalty"},
    ),
    "kl_in_reward": Entry(
        regularize.kl_in_reward,
        kind="statistic",
        paper="arXiv:1909.08593",
        provenance="official code",
        equation="r_t - beta (log pi_old - log ref)",
        aliases={"verl": "apply_kl_penalty"},
    ),
}

"""Published policy-gradient methods as recipes: a config may change every stage of them (:mod:`rlx.recipe`)."""

from typing import Any

from rlx import aggregate, recipe
from rlx.catalog.entry import Entry

PERMUTED = {"permutation": "candidates are drawn by their position in the batch: only the distribution is invariant"}


def published(
    paper: str,
    equation: str,
    *,
    coupling: str = "group",
    provenance: str = "equation",
    aliases: dict[str, str] | None = None,
    exempt: dict[str, str] | None = None,
    **stages: Any,
) -> Entry:
    """A recipe with these stages."""
    return Entry(
        recipe.policy_gradient,
        kind="loss",
        paper=paper,
        provenance=provenance,
        equation=equation,
        coupling=coupling,
        preset=stages,
        arrays=recipe.needs,
        method=recipe.method,
        aliases=aliases or {},
        exempt=exempt or {},
    )


REINFORCE: dict[str, Any] = {"ratio": "none", "surrogate": "reinforce"}
CLIP_HIGHER = "clip(0.2, 0.28)"
MEAN: dict[str, Any] = {"reduce": aggregate.sequence_mean}
SUM: dict[str, Any] = {"reduce": aggregate.sequence_sum}

ENTRIES: dict[str, Entry] = {
    "grpo": published(
        "arXiv:2402.03300",
        "PPO's clip on (r - mean r) / std r, mean of token means, + 0.04 k3",
        kl="k3(0.04)",
        **MEAN,
    ),
    "dr_grpo": published(
        "arXiv:2503.20783",
        "PPO's clip on r - mean r, sum of tokens over a constant length",
        advantage="dr_grpo",
        reduce=aggregate.constant(1024),
    ),
    "dapo": published(
        "arXiv:2503.14476",
        "PPO's clip (0.2, 0.28) on (r - mean r) / std r, mean over tokens",
        surrogate=CLIP_HIGHER,
    ),
    "ppo": published(
        "arXiv:1707.06347",
        "PPO's clip on whitened generalised advantages, mean over tokens",
        coupling="batch",
        advantage="gae(1.0, 0.95)",
        shape="whiten",
    ),
    "t_ppo": published(
        "arXiv:2506.15050",
        "PPO's clip on whitened advantages of truncated responses, mean over tokens",
        coupling="batch",
        advantage="tppo_egae",
        shape="whiten",
    ),
    "reinforce": published(
        "Williams, Machine Learning 8, 1992",
        "-log pi times the reward to go, sum over the response",
        coupling="example",
        advantage="reward_to_go",
        **REINFORCE,
        **SUM,
    ),
    "rloo": published(
        "arXiv:2402.14740",
        "-log pi (r - mean of the others), sum over the response",
        advantage="rloo",
        **REINFORCE,
        **SUM,
    ),
    "remax": published(
        "arXiv:2310.10505",
        "-log pi (reward to go - reward of the greedy response), sum over the response",
        coupling="example",
        advantage="remax",
        **REINFORCE,
        **SUM,
    ),
    "opo": published(
        "arXiv:2505.23585",
        "-log pi (r - length-weighted mean r), sum over the response",
        advantage="opo",
        **REINFORCE,
        **SUM,
    ),
    "gpg": published(
        "arXiv:2504.02546",
        "-log pi alpha (r - mean r), alpha for prompts without a gradient, mean over tokens",
        coupling="batch",
        advantage="gpg",
        **REINFORCE,
    ),
    "reinforce_plus_plus": published(
        "arXiv:2501.03262",
        "PPO's clip on the whitened reward to go, a KL in the reward, mean over tokens",
        coupling="batch",
        reward="kl_in_reward(0.001)",
        advantage="reinforce_plus_plus",
    ),
    "reinforce_plus_plus_baseline": published(
        "arXiv:2501.03262",
        "PPO's clip on r - mean r, whitened over tokens, mean over tokens",
        coupling="batch",
        advantage="reinforce_plus_plus_baseline",
    ),
    "w_reinforce": published(
        "arXiv:2506.01347",
        "-log pi (0.1 r where right, r - 1 where wrong), mean over tokens",
        coupling="example",
        advantage="psr_nsr",
        **REINFORCE,
    ),
    "asymre": published(
        "arXiv:2506.20520",
        "-log pi (r - mean r - shift), mean over tokens",
        advantage="asymre",
        **REINFORCE,
    ),
    "opmd": published(
        "arXiv:2509.24203",
        "-log pi (r - mean r) / (1 + tau), mean over tokens",
        advantage="opmd",
        ratio="none",
        surrogate="opmd(1.0)",
    ),
    "topr": published(
        "arXiv:2503.14286",
        "-log pi a (r - mean r), a = clip(ratio of the response, 0, 1) of the bad ones, sum over the response",
        advantage="dr_grpo",
        ratio="sequence_sum",
        surrogate="topr",
        **SUM,
    ),
    "rec_one_side": published(
        "arXiv:2509.24203",
        "-log pi r (A = reward - mean) on the tokens that PPO trains on, mean over tokens",
        advantage="rec",
        surrogate="rec_one_side(0.2, 0.2, weight='importance')",
    ),
    "rec_two_side": published(
        "arXiv:2509.24203",
        "-log pi r (A = reward - mean) inside the clip range, mean over tokens",
        advantage="rec",
        surrogate="rec_two_side(0.2, 0.2, weight='importance')",
    ),
    "rec_ring": published(
        "arXiv:2509.24203",
        "-log pi r (A = reward - mean) inside the clip range, or far outside where that pulls back, mean over tokens",
        advantage="rec",
        surrogate="rec_ring(0.2, 0.2, 0.6, 2.0, weight='importance')",
    ),
    "red_weight": published(
        "arXiv:2509.24203",
        "-log pi A exp(A), A = r - mean r, mean over tokens",
        advantage="rec",
        ratio="none",
        surrogate="red",
    ),
    "ngrpo": published(
        "arXiv:2509.18851",
        "PPO's clip (0.16, 0.24) on advantages with a virtual best response, mean over tokens",
        advantage="ngrpo",
        surrogate="clip(0.16, 0.24)",
    ),
    "passk_grpo": published(
        "arXiv:2503.19595",
        "PPO's clip on (best - second best) / std of the best response alone, mean over tokens",
        advantage="passk",
    ),
    "unlikeliness_grpo": published(
        "arXiv:2506.02355",
        "GRPO on rewards taken down by the likelihood of a response in its group",
        advantage="unlikeliness",
        kl="k3(0.1)",
        **MEAN,
    ),
    "gspo": published(
        "arXiv:2507.18071",
        "PPO's clip on exp(mean log-ratio) of the response, mean over responses",
        ratio="sequence_straight_through",
        surrogate="clip(0.0003, 0.0004)",
        **MEAN,
    ),
    "luspo": published(
        "TRL",
        "GSPO with responses weighted by their length",
        ratio="sequence",
        surrogate="clip(0.0003, 0.0004)",
        **SUM,
    ),
    "gmpo": published(
        "arXiv:2507.20673",
        "-A exp(mean of log-ratios, clipped in log space), mean over responses",
        ratio="geometric(0.4, 0.4)",
        surrogate="unclipped",
        **MEAN,
    ),
    "cispo": published(
        "arXiv:2506.13585",
        "-sg[min(r, 5)] A log pi, mean over tokens",
        surrogate="cispo(1.0, 4.0)",
    ),
    "sapo": published(
        "arXiv:2511.20347",
        "-A (4/tau) sigmoid(tau (r - 1)), mean over responses",
        surrogate="soft(1.0, 1.05)",
        **MEAN,
    ),
    "vespo": published(
        "TRL",
        "-sg[s^k exp(lam (1 - s))] A log pi, s the ratio of the response, mean over tokens",
        ratio="bounded_sum",
        surrogate="vespo",
    ),
    "spo": published(
        "arXiv:2505.23564",
        "PPO's clip on advantages of segments, on tokens with pi_old < 0.9, mean over these",
        coupling="example",
        advantage="spo_chain",
        ratio="token(10.0)",
        mask="low_probability(0.9)",
    ),
    "forking_tokens": published(
        "arXiv:2506.01939",
        "DAPO on the fifth of the tokens with the highest entropy",
        coupling="batch",
        surrogate=CLIP_HIGHER,
        select="high_entropy(0.2)",
    ),
    "trl_entropy_mask_grpo_loss": published(
        "arXiv:2506.01939",
        "PPO's clip on given advantages, on the tokens with H >= quantile_{1-rho}(H), mean over all tokens",
        coupling="batch",
        provenance="peer library",
        advantage=None,
        ratio="token(60.0)",
        select="high_entropy(0.2)",
        aliases={"trl": "top_entropy_quantile"},
    ),
    "clip_cov_grpo": published(
        "arXiv:2505.22617",
        "GRPO's advantages and an open clip (1, 1), without random tokens of high covariance, mean over tokens",
        coupling="batch",
        surrogate="clip(1.0, 1.0)",
        select="clip_cov_keep(1.0, 1.0, 0.0002, 1.0, 5.0)",
        exempt=PERMUTED,
    ),
    "kl_cov_grpo": published(
        "arXiv:2505.22617",
        "-A r on GRPO's advantages, + |log r| on the tokens of highest covariance, mean over tokens",
        coupling="batch",
        surrogate="unclipped",
        old_kl="abs(1.0)",
        old_kl_select="kl_cov_select(0.0002)",
    ),
    "entropy_advantage_grpo": published(
        "arXiv:2506.14758",
        "DAPO with min(0.4 H, |A| / 2) added to the advantages",
        surrogate=CLIP_HIGHER,
        shape="entropy_advantage_shaping(0.4, 2.0)",
    ),
    "empg_grpo": published(
        "arXiv:2509.09265",
        "PPO's clip on advantages of steps, scaled by how certain they are, mean over tokens",
        coupling="batch",
        shape="empg",
    ),
    "tis_grpo": published(
        "verl, rollout correction",
        "DAPO with min(pi_old / pi_rollout, 2) as weights",
        coupling="batch",
        surrogate=CLIP_HIGHER,
        weight="truncated_importance_sampling",
    ),
    "process_grpo": published(
        "arXiv:2402.03300",
        "GRPO on rewards of steps, normalised over all steps of the group",
        advantage="grpo_process",
        kl="k3(0.04)",
        exempt={"padding_side": "steps are given by the index of their last token, which moves with the padding"},
        **MEAN,
    ),
    "matchtir": published(
        "arXiv:2601.10712",
        "GRPO on advantages of the response and of its turns",
        advantage="matchtir",
        kl="k3(0.001)",
        **MEAN,
    ),
}

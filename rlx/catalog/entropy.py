"""Methods that control the entropy: selections, weights, regularisers, controllers."""

from rlx.catalog.entry import Entry
from rlx.method import Coupled
from rlx.policy import entropy, regularize, select

ENTRIES: dict[str, Entry] = {
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

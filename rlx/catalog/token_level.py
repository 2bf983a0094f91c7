"""Preference losses that read tokens."""

from rlx.catalog.entry import Entry
from rlx.method import Coupled
from rlx.preference import mask_head, masks, segments, token_level, weighted_tokens

ENTRIES: dict[str, Entry] = {
    "tdpo": Entry(
        token_level.tdpo,
        kind="loss",
        paper="arXiv:2404.11999",
        provenance="official code",
        equation="-log s(beta (m - alpha (K_l - sg K_w))), K = sum_t KL(ref || pi)",
    ),
    "tdpo1": Entry(
        token_level.tdpo1,
        kind="loss",
        paper="arXiv:2404.11999",
        provenance="official code",
        equation="-log s(beta (m - (K_l - K_w))), K = sum_t KL(ref || pi)",
        vectors=("tdpo",),
    ),
    "ld_dpo": Entry(
        weighted_tokens.ld_dpo,
        kind="loss",
        paper="arXiv:2409.06411",
        provenance="peer library",
        equation="-log s(beta (s_w - s_l)), s = sum_{t<=L} d_t + alpha sum_{t>L} d_t, L = min(|w|, |l|)",
        aliases={"trl": "sigmoid with ld_alpha"},
    ),
    "wpo": Entry(
        weighted_tokens.wpo,
        kind="loss",
        paper="arXiv:2406.11827",
        provenance="peer library",
        equation="-w_w w_l log s(beta m), w = exp mean_t [log pi(y_t) - log sum_v pi(v)^2]",
        aliases={"trl": "sigmoid with use_weighting"},
    ),
    "cpl": Entry(
        segments.cpl,
        kind="loss",
        paper="arXiv:2310.13639",
        provenance="official code",
        equation="-q log s(s_1 - lambda s_2) - (1-q) log s(s_2 - lambda s_1) - c mean log pi, s = alpha sum_t log pi",
        coupling="batch",
        coupled={"scale": Coupled(segments.units_per_token)},
    ),
    "cpl_dense": Entry(
        segments.cpl_dense,
        kind="loss",
        data="lists",
        paper="arXiv:2310.13639",
        provenance="official code",
        equation="mean over r_i > r_j of -log s(s_i - lambda s_j), - c mean log pi, s = alpha sum_t log pi(a_t)",
        coupling="batch",
        coupled={"scale": Coupled(segments.units_per_token)},
        vectors=("cpl",),
    ),
    "mcts_dpo": Entry(
        segments.mcts_dpo,
        kind="loss",
        paper="arXiv:2405.00451",
        provenance="official code",
        equation="(1-eps) f(beta m) + eps f(-beta m) from the first differing token, eps = 1 - 1/(1 + v_l/max(1, v_w))",
    ),
    "sparsepo": Entry(
        masks.sparsepo,
        kind="loss",
        paper="arXiv:2410.05102",
        provenance="official code",
        equation="-log s(beta (u_w - u_l + K_w - K_l)) + l1, u = sum_t m^r d_t, K = sum_t m^k KL(ref || pi)",
        method=mask_head.sparsepo_method,
    ),
    "mapo": Entry(
        masks.mapo,
        kind="loss",
        paper="arXiv:2410.05102",
        provenance="official code",
        equation="-log s(beta (u_w - u_l + K_w - K_l)), u = sum_t m d_t, K = sum_t m KL(ref || pi), m from activations",
        vectors=("sparsepo", "mapo_activation_mask"),
    ),
    "mapo_activation_mask": Entry(
        masks.mapo_activation_mask,
        kind="statistic",
        paper="arXiv:2410.05102",
        provenance="equation",
        equation="(a_t - min a) / (max a - min a) over response tokens",
    ),
}

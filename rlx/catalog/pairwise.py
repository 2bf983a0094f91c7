"""Losses of pairs and of single responses."""

from rlx.catalog.entry import Entry
from rlx.method import Coupled
from rlx.preference import pairwise, pointwise, power

ENTRIES: dict[str, Entry] = {
    "dpo": Entry(
        pairwise.dpo,
        kind="loss",
        paper="arXiv:2305.18290",
        provenance="peer library",
        equation="-log s(beta m)",
        aliases={"trl": "sigmoid"},
    ),
    "rdpo": Entry(
        pairwise.rdpo,
        kind="loss",
        paper="arXiv:2403.00409",
        provenance="peer library",
        equation="[(1-eps) f(beta m) - eps f(-beta m)] / (1-2 eps)",
        aliases={"trl": "robust"},
    ),
    "cdpo": Entry(
        pairwise.cdpo,
        kind="loss",
        paper="arXiv:2403.00409",
        provenance="peer library",
        equation="(1-eps) f(beta m) + eps f(-beta m), f = -log s",
        aliases={"trl": "sigmoid with label_smoothing"},
    ),
    "dpo_reference_free": Entry(
        pairwise.dpo_reference_free,
        kind="loss",
        paper="arXiv:2305.18290",
        provenance="peer library",
        equation="-log s(beta (log pi(w) - log pi(l)))",
        aliases={"trl": "sigmoid with reference_free"},
    ),
    "ipo": Entry(
        pairwise.ipo,
        kind="loss",
        paper="arXiv:2310.12036",
        provenance="peer library",
        equation="(h - 1/(2 tau))^2, h = m or d_w/|w| - d_l/|l|",
        aliases={"trl": "ipo"},
    ),
    "simpo": Entry(
        pairwise.simpo,
        kind="loss",
        paper="arXiv:2405.14734",
        provenance="peer library",
        equation="-log s(beta (log pi(w)/|w| - log pi(l)/|l|) - gamma)",
        aliases={"trl": "simpo"},
    ),
    "sft": Entry(
        pointwise.sft,
        kind="loss",
        paper="arXiv:2203.02155",
        provenance="equation",
        equation="-log pi(y_t)",
    ),
    "kto": Entry(
        pointwise.kto,
        kind="loss",
        paper="arXiv:2402.01306",
        provenance="peer library",
        equation="lambda_D (1 - s(beta (d - z0))) or lambda_U (1 - s(beta (z0 - d)))",
        coupling="batch",
        coupled={"reference_point": Coupled(pointwise.kto_reference_point)},
        aliases={"trl": "kto"},
    ),
    "apo_zero_unpaired": Entry(
        pointwise.apo_zero_unpaired,
        kind="loss",
        paper="arXiv:2408.06266",
        provenance="peer library",
        equation="lambda_D (1 - s(beta d)) or lambda_U s(beta d)",
        aliases={"trl": "apo_zero_unpaired"},
        vectors=("kto",),
    ),
    "power": Entry(
        power.power,
        kind="loss",
        paper="arXiv:2412.09544",
        provenance="equation",
        equation="-log s(z) - eta beta w_w log pi(w), z = beta (w_w (log pi(w) + 1) - w_l (log pi(l) + 1)), w = 1/|y|",
    ),
    "power_dl": Entry(
        power.power_dl,
        kind="loss",
        paper="arXiv:2412.09544",
        provenance="equation",
        equation="-l log s(z) - (1-l) log s(-z) - eta beta w_w log pi(w), l <- (1-gamma) l + gamma s(z)",
        method=power.power_dl_method,
    ),
}

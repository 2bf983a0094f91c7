"""The catalogue: one dict literal, name -> :class:`Entry`: function, source, provenance, exemptions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rlx import errors
from rlx.method import Coupled, Method, arrays_of
from rlx.policy import advantages, clipped, entropy, regularize, select
from rlx.preference import distillation, listwise, pairwise, pointwise, power, token_level
from rlx.reward import bradley_terry, general_preference


class Entry(NamedTuple):
    """What the catalogue knows of a method.

    Attributes:
      function: the pure function.
      kind: ``loss``, ``advantage``, ``weights``, ``statistic``, ``solver`` or ``host``.
      paper: arXiv id or title.
      provenance: what the vectors were produced by: ``official code``, ``peer library`` or ``equation``.
      equation: one line.
      coupling: ``example``, ``group`` or ``batch``.
      preset: keywords that the name fixes.
      coupled: keyword of the function -> what computes it from the global batch (:class:`rlx.method.Coupled`).
      method: builds the :class:`~rlx.method.Method` of a name with parameters or state of its own.
      aliases: library -> the name there.
      vectors: ids of the vector files that check it; the name itself by default.
      exempt: property of ``tests/table_test.py`` -> why it cannot hold.
    """

    function: Callable[..., Any]
    kind: str
    paper: str
    provenance: str
    equation: str
    coupling: str = "example"
    preset: Mapping[str, Any] = {}
    coupled: Mapping[str, Coupled] = {}
    method: Callable[..., Method] | None = None
    aliases: Mapping[str, str] = {}
    vectors: tuple[str, ...] = ()
    exempt: Mapping[str, str] = {}

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the arrays it reads."""
        return arrays_of(self.function)[0]


CATALOG: dict[str, Entry] = {
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
    "adpo_listwise": Entry(
        listwise.adpo_listwise,
        kind="loss",
        paper="arXiv:2510.18913",
        provenance="equation",
        equation="-sum_i q_i log softmax(d/tau)_i, q = softmax(scores/beta_r)",
    ),
    "adpo_pairwise": Entry(
        listwise.adpo_pairwise,
        kind="loss",
        paper="arXiv:2510.18913",
        provenance="equation",
        equation="-q log s(m/tau) - (1-q) log s(-m/tau)",
    ),
    "listmle": Entry(
        listwise.listmle,
        kind="loss",
        paper="Xia et al., ICML 2008",
        provenance="peer library",
        equation="sum_k logsumexp_{l>=k} s_l - s_k, labels descending",
        aliases={"rax": "listmle_loss"},
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
    "pld": Entry(
        distillation.pld,
        kind="loss",
        paper="arXiv:2506.12542",
        provenance="equation",
        equation="sum_k softmax(t/T)_k (logsumexp_{l>=k} s_l - s_k), target first, then by teacher",
    ),
    "pld_token_level": Entry(
        distillation.pld_token_level,
        kind="loss",
        paper="arXiv:2506.12542",
        provenance="equation",
        equation="pld at every token",
    ),
    "gpm": Entry(
        general_preference.gpm,
        kind="loss",
        paper="arXiv:2410.02197",
        provenance="official code",
        equation="-log s((sum_j v_w[2j] v_l[2j+1] - v_w[2j+1] v_l[2j] - margin)/tau)",
        method=general_preference.gpm_method,
    ),
    "bradley_terry_rm": Entry(
        bradley_terry.bradley_terry_rm,
        kind="loss",
        paper="arXiv:2204.05862",
        provenance="peer library",
        equation="(1-eps) f(z) + eps f(-z), z = (r_w - r_l - margin)/tau",
    ),
}


def lookup(name: str) -> Entry:
    """The entry of a name; an unknown one raises a UserError with close matches."""
    if name not in CATALOG:
        raise errors.UserError(
            f"Unknown method {name!r}.{errors.close_matches(name, CATALOG)} See METHODS.md for all names."
        )
    return CATALOG[name]

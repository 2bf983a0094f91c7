"""Statistics of next-token distributions: entropies, covariances, and what they predict."""

from rlx.catalog.entry import Entry
from rlx.ops import covariance, entropies, truncated, windows
from rlx.policy import exact, law

ENTRIES: dict[str, Entry] = {
    "token_entropy": Entry(
        entropies.token_entropy,
        kind="statistic",
        paper="Shannon 1948",
        provenance="official code",
        equation="H = -sum p log p, p = softmax(z / tau)",
        aliases={"verl": "entropy_from_logits"},
    ),
    "renyi_entropy": Entry(
        entropies.renyi_entropy,
        kind="statistic",
        paper="Renyi 1961",
        provenance="equation",
        equation="log(sum p^a) / (1 - a)",
    ),
    "tsallis_entropy": Entry(
        entropies.tsallis_entropy,
        kind="statistic",
        paper="Tsallis 1988",
        provenance="equation",
        equation="(1 - sum p^q) / (q - 1)",
    ),
    "tempered_entropy": Entry(
        entropies.tempered_entropy,
        kind="statistic",
        paper="arXiv:2510.08141",
        provenance="equation",
        equation="H(q), q = softmax(z / tau), dH/dtau = Var_q(log q) / tau",
    ),
    "top_p_entropy": Entry(
        truncated.top_p_entropy,
        kind="statistic",
        paper="arXiv:2509.25133",
        provenance="official code",
        equation="-sum_N q log q, q = p / sum_N p, N the nucleus of mass p",
    ),
    "top_k_entropy": Entry(
        truncated.top_k_entropy,
        kind="statistic",
        paper="arXiv:2510.08457",
        provenance="equation",
        equation="-sum_k q log q, q = p / sum_k p; or -sum_k p log p - t log t, t = 1 - sum_k p",
    ),
    "window_entropy": Entry(
        windows.window_entropy,
        kind="statistic",
        paper="arXiv:2510.08457",
        provenance="official code",
        equation="W_t = mean(H_{t+1}, ..., H_{t+w})",
    ),
    "token_covariance": Entry(
        covariance.token_covariance,
        kind="statistic",
        paper="arXiv:2505.22617",
        provenance="equation",
        equation="(log pi_t - mean log pi) (A_t - mean A)",
        coupling="batch",
    ),
    "vocabulary_covariance": Entry(
        covariance.vocabulary_covariance,
        kind="statistic",
        paper="arXiv:2505.22617",
        provenance="equation",
        equation="Cov_{a ~ pi}(log pi(a), x_a); dH = -Cov for a change x of the logits",
    ),
    "entropy_discriminator": Entry(
        covariance.entropy_discriminator,
        kind="statistic",
        paper="arXiv:2602.03392",
        provenance="equation",
        equation="S_y = p_y (H + log p_y), minus sum p S",
    ),
    "entropy_performance_law": Entry(
        law.entropy_performance_law,
        kind="host",
        paper="arXiv:2505.22617",
        provenance="equation",
        equation="R = -a exp(H) + b by least squares",
    ),
    "soft_policy_gradient": Entry(
        exact.tsallis_policy_gradient,
        kind="loss",
        paper="arXiv:1801.01290",
        provenance="equation",
        equation="-(sum pi r + beta H)",
        preset={"q": 1.0},
        data="sft",
    ),
    "tsallis_policy_gradient": Entry(
        exact.tsallis_policy_gradient,
        kind="loss",
        paper="arXiv:1902.00137",
        provenance="equation",
        equation="-(sum pi r + beta (1 - sum pi^q) / (q - 1))",
        data="sft",
    ),
}

"""Published methods that are not here because their formula is not established: name -> (paper, what is missing)."""

WANTED: dict[str, tuple[str, str]] = {
    "ranklist": ("arXiv:2508.09826", "the log-sum-exp approximation of its product of comparisons"),
    "mapl": ("arXiv:2505.12845", "the intra-sample and inter-sample objectives"),
    "fifa": ("arXiv:2410.10166", "weights and units of margin, text quality and diversity; its k-NN entropy term"),
    "pbt": ("persuasion-balanced training", "no loss of its own: dialogue trees and a standard preference loss"),
}

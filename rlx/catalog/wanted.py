"""Published methods that are not here because their formula is not established: name -> (paper, what is missing)."""

WANTED: dict[str, tuple[str, str]] = {
    "ranklist": ("arXiv:2508.09826", "the log-sum-exp approximation of its product of comparisons"),
    "mapl": ("arXiv:2505.12845", "the intra-sample and inter-sample objectives"),
    "fifa": ("arXiv:2410.10166", "weights and units of margin, text quality and diversity; its k-NN entropy term"),
    "pbt": ("persuasion-balanced training", "no loss of its own: dialogue trees and a standard preference loss"),
    "mashost": ("arXiv:2506.08507", "how advantages over whole graphs and rewards of single actions are combined"),
    "skywork_ssb": (
        "arXiv:2504.16656",
        "how its buffer of samples with an advantage is drawn from; `rl.rollout.replay` draws as 2504.08837",
    ),
    "refcritic": ("arXiv:2507.15024", "the weights of its two rewards"),
    "treeps_rag": (
        "arXiv:2601.06922",
        "the advantage of a step; values of nodes: `tree_mc_value`, their differences: `mc_tree`",
    ),
    "aepo_rollouts": ("arXiv:2510.14545", "the penalty on branching again and again; its loss is `aepo_agentic`"),
    "tool_light_pairs": ("arXiv:2509.23285", "which pairs are kept; where it branches is `tool_light_branching`"),
    "maxrl": ("MaxRL", "its objective"),
    "training_free_grpo": ("Training-Free GRPO", "no loss of its own: a comparison of texts that joins the prompt"),
}

"""Nested groups: segments, turns, anchor states, trees; and evolution strategies."""

from rlx.catalog.entry import Entry
from rlx.policy import branching, evolution, matching, nested, trees

_INTEGERS = "its result holds positions, which are integers"

ENTRIES: dict[str, Entry] = {
    "gigpo_advantage": Entry(
        nested.gigpo_advantage,
        kind="advantage",
        paper="arXiv:2505.10978",
        provenance="official code",
        equation="(R - mean R) / F + w (G_t - mean of G at the same state) / F",
        coupling="group",
        aliases={"verl-agent": "gigpo"},
    ),
    "anchor_states": Entry(
        nested.anchor_states,
        kind="host",
        paper="arXiv:2505.10978",
        provenance="official code",
        equation="equal (or similar) observations of a task get equal numbers",
        vectors=("gigpo_advantage",),
    ),
    "matchtir_advantage": Entry(
        nested.matchtir_advantage,
        kind="advantage",
        paper="arXiv:2601.10712",
        provenance="official code",
        equation="z(R) over responses + z(r_j + gamma G_j+1) over turns j",
        coupling="group",
    ),
    "matchtir_matching_reward": Entry(
        matching.matchtir_matching_reward,
        kind="host",
        paper="arXiv:2601.10712",
        provenance="official code",
        equation="S_i,m(i) of the optimal one-to-one matching m, or the penalty",
    ),
    "spo_chain_advantage": Entry(
        nested.spo_chain_advantage,
        kind="advantage",
        paper="arXiv:2505.23564",
        provenance="official code",
        equation="V(next cut) - V(last cut)",
    ),
    "spo_tree_advantage": Entry(
        trees.spo_tree_advantage,
        kind="advantage",
        paper="arXiv:2505.23564",
        provenance="official code",
        equation="V(n) - V(parent n), V = mean over children",
        coupling="group",
    ),
    "tree_mc_value": Entry(
        trees.tree_mc_value,
        kind="statistic",
        paper="arXiv:2601.06922",
        provenance="equation",
        equation="mean outcome of the leaves below n",
        coupling="group",
    ),
    "graph_grpo_edge_advantage": Entry(
        trees.graph_grpo_edge_advantage,
        kind="advantage",
        paper="arXiv:2603.02701",
        provenance="equation",
        equation="(S_ij - mu) / sigma, S_ij the mean reward of the graphs with the edge",
        coupling="group",
    ),
    "etmr_fork_positions": Entry(
        branching.etmr_fork_positions,
        kind="statistic",
        paper="arXiv:2508.11356",
        provenance="equation",
        equation="the N tokens of largest entropy",
        exempt={"float64": _INTEGERS, "bfloat16": _INTEGERS},
    ),
    "tool_light_branching": Entry(
        branching.tool_light_branching,
        kind="statistic",
        paper="arXiv:2509.23285",
        provenance="official code",
        equation="the steps of largest max_n mean_{t<n} H_t",
        exempt={"float64": _INTEGERS, "bfloat16": _INTEGERS},
    ),
    "eggroll_fitness": Entry(
        evolution.eggroll_fitness,
        kind="statistic",
        paper="arXiv:2511.16652",
        provenance="official code",
        equation="(s - mean s) / sqrt(var s + epsilon)",
        coupling="group",
    ),
    "eggroll_update": Entry(
        evolution.eggroll_update,
        kind="solver",
        paper="arXiv:2511.16652",
        provenance="official code",
        equation="W + lr sqrt(N)/N sum_i f_i sigma A_i B_i^T / sqrt r",
        coupling="batch",
    ),
}

r"""Does a small change of the reward change the policy, and who pays when groups disagree?

*cliff*: the map from reward to optimal policy jumps at ties, the entropy-regularised one does not (Policy Cliff,
arXiv:2507.20150; its theory, on random instances). *groups*: a single reward model serves the majority, MaxMin-RLHF
(arXiv:2402.08925) lifts the group that is worst off; its tables need language models, here actions have known rewards.

  python -m experiments.policy_cliff [--full] [--smoke] [--part=cliff] [--workdir=DIR]

  (nothing)     20 instances of both parts; two minutes on 2 cores
  --full        100 instances
  --smoke       both parts in seconds, without a verdict
  --part=cliff  one part only: cliff or groups

writes metrics.jsonl (a row per instance and cell), table.md, table.csv and plot.png; a second call computes only the
rows that are missing. Nothing is trained but reward models of the groups, by expectation maximisation.
"""

from experiments import parts, policy_cliff_groups, policy_cliff_map

EXPERIMENT = parts.Experiment(
    "policy_cliff",
    "Policy cliffs, and the worst-off group",
    __doc__.split("\n\n", 2)[2],
    {"cliff": policy_cliff_map.PART, "groups": policy_cliff_groups.PART},
)

if __name__ == "__main__":
    parts.command_line(EXPERIMENT)

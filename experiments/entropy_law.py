r"""Is entropy what reward is paid with? The Entropy Mechanism (arXiv:2505.22617) on a contextual bandit.

The paper fits R = -a exp(H) + b to runs of language models, explains the fall of the entropy by the covariance of
log-probability and advantage, and keeps it up with Clip-Cov and KL-Cov. Its tables need language models; the law, the
covariance and the two methods are tested here where entropy and reward are known exactly.

  python -m experiments.entropy_law [--full] [--smoke] [--part=bandit] [--workdir=DIR]

  (nothing)     10 seeds; 8 methods at one learning rate, 3 at two larger ones; three minutes on 2 cores
  --full        40 seeds
  --smoke       one method in seconds, without a verdict
  --part=bandit one part only: there is one

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing.
"""

from experiments import entropy_law_bandit, parts

EXPERIMENT = parts.Experiment(
    "entropy_law",
    "The price of entropy: R = -a exp(H) + b, covariance, Clip-Cov and KL-Cov",
    __doc__.split("\n\n", 2)[2],
    {"bandit": entropy_law_bandit.PART},
)

if __name__ == "__main__":
    parts.command_line(EXPERIMENT)

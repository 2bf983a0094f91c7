r"""Do preference losses learn rankings? Theorems and figures of arXiv:2405.19534 on problems with a known truth.

The paper shows that tuned models rank fewer than 60 % of preference pairs rightly although the optimum of DPO would
rank nearly all (Table 1), and that the loss falls without the rankings changing (Figures 2, 3). Its table needs large
language models; its theorems are checked exactly here, and its figures on linear policies and a small language model.

  python -m experiments.preference_rankings [--full] [--smoke] [--part=linear] [--workdir=DIR]

  (nothing)      linear with 10 seeds, the language model with 5; a few minutes on 2 cores
  --full         40 and 10 seeds, twice the steps of the language model
  --smoke        both parts in seconds, without a verdict
  --part=linear  one part only: linear or language

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing. Learning rates were chosen on seeds from 1000 on, by held-out loss alone.
"""

from experiments import parts, preference_rankings_language, preference_rankings_linear

EXPERIMENT = parts.Experiment(
    "preference_rankings",
    "Preference learning and rankings: DPO and IPO",
    __doc__.split("\n\n", 2)[2],
    {"linear": preference_rankings_linear.PART, "language": preference_rankings_language.PART},
)

if __name__ == "__main__":
    parts.command_line(EXPERIMENT)

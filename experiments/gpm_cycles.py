r"""Can a reward model learn a cycle? The General Preference Model (arXiv:2410.02197) against Bradley-Terry.

The paper's RewardBench table needs large language models; its claim on cyclic preferences is tested here on items with
free embeddings, where the best fit is known, and on a small transformer whose prompt decides between a cycle and an
order. Sizes, optimiser and problems are ours.

  python -m experiments.gpm_cycles [--full] [--smoke] [--part=items] [--workdir=DIR]

  (nothing)     20 seeds of items, 10 of prompts; two minutes on 2 cores
  --full        100 seeds of items, 40 of prompts
  --smoke       both parts in seconds, without a verdict
  --part=items  one part only: items or prompts

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing. Steps and learning rates were chosen on seeds from 1000 on, so that the losses stand still.
"""

from experiments import gpm_cycles_items, gpm_cycles_prompts, parts

EXPERIMENT = parts.Experiment(
    "gpm_cycles",
    "Cyclic preferences: the general preference model and Bradley-Terry",
    __doc__.split("\n\n", 2)[2],
    {"items": gpm_cycles_items.PART, "prompts": gpm_cycles_prompts.PART},
)

if __name__ == "__main__":
    parts.command_line(EXPERIMENT)

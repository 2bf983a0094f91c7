r"""Does the rank of the noise matter? EGGROLL (arXiv:2511.16652), evolution strategies with low-rank perturbations.

The paper trains language models and plays many games; its claim, that low-rank noise loses nothing and is faster, is
tested here where theory says how good an update is, on two small control problems, and by the clock. Problems, sizes
and optimiser are ours.

  python -m experiments.eggroll_rank [--full] [--smoke] [--part=NAME] [--workdir=DIR]

  (nothing)    20 draws of updates up to 4096 members, 5 seeds of two control tasks, 5 timings; minutes on 2 cores
  --full       100 draws, 20 seeds of control, 20 timings
  --smoke      all parts in seconds, without a verdict
  --part=NAME  one part only: update, control or speed

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing. Noise size, learning rate and number of updates of the control tasks were chosen on seeds from 1000
on, at full rank.
"""

from experiments import eggroll_rank_control, eggroll_rank_speed, eggroll_rank_update, parts

EXPERIMENT = parts.Experiment(
    "eggroll_rank",
    "Evolution strategies: the rank of the noise",
    __doc__.split("\n\n", 2)[2],
    {"update": eggroll_rank_update.PART, "control": eggroll_rank_control.PART, "speed": eggroll_rank_speed.PART},
)

if __name__ == "__main__":
    parts.command_line(EXPERIMENT)

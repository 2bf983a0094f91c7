r"""How much does a question count, by the share p of right answers? GRPO, Dr. GRPO, DAPO, DisCO, NGRPO.

The accuracies of the papers (DisCO, arXiv:2505.12366; NGRPO, arXiv:2509.18851) need language models; what they derive
is checked here to rounding. *weights*: at a binary reward the gradient of each loss is that of a comparison of right
with wrong answers, times a weight that depends on p alone: the difficulty bias. *wrong*: groups without a right answer.

  python -m experiments.difficulty_bias [--full] [--smoke] [--part=weights] [--workdir=DIR]

  (nothing)       10 policies, 15 shares p; half a minute on 2 cores
  --full          50 policies, 31 shares
  --smoke         both parts in seconds, without a verdict
  --part=weights  one part only: weights or wrong

writes metrics.jsonl (a row per policy and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing. Nothing is trained or tuned; gradients are automatic, in float64, through the losses of rlx.
"""

from experiments import difficulty_bias_weights, difficulty_bias_wrong, parts

EXPERIMENT = parts.Experiment(
    "difficulty_bias",
    "What a question weighs, by how hard it is",
    __doc__.split("\n\n", 2)[2],
    {"weights": difficulty_bias_weights.PART, "wrong": difficulty_bias_wrong.PART},
)

if __name__ == "__main__":
    parts.command_line(EXPERIMENT)
